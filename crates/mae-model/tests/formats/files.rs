//! Where weights are in files and folders: prefixes, shards, damage.

use std::collections::BTreeMap;

use mae_model::Normalization;
use mae_model::checkpoint::Part;
use mae_model::formats::{ReadOptions, read};
use mae_model::tensor_file::{read_tensors, write_tensors};
use tch::{Kind, Tensor};

use super::{authors, fixture, read_fixture, same};

#[test]
fn shards_and_pickled_weights_of_a_folder_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = fixture("huggingface");
    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(source.join(name), path(name)).unwrap();
    }
    let (tensors, _) = read_tensors(&source.join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (i, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (tensors.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    let index = |map: serde_json::Map<String, serde_json::Value>| {
        let text = serde_json::json!({ "weight_map": map }).to_string();
        std::fs::write(path("model.safetensors.index.json"), text).unwrap();
    };
    index(map.clone());
    let weights = read(folder.path(), &ReadOptions::default()).unwrap();
    same(&weights.tensors, &read_fixture("huggingface").tensors);

    let fails = |expected: &str| {
        let message = read(folder.path(), &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    };
    map.insert("absent".into(), "a.safetensors".into());
    index(map.clone());
    fails("lists `absent`, which none of its files has");
    map.insert("absent".into(), "../a.safetensors".into());
    index(map);
    fails("\"../a.safetensors\", which is no file beside it");
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
    fails("a config.json without weights");
}

#[test]
fn weights_are_found_wherever_a_program_puts_them() {
    let expected = read_fixture("authors.pth").tensors;
    let read_with = |name: &str, key: Option<&str>| {
        let said = ReadOptions {
            norm_pix_loss: Some(true),
            normalization: Some(Normalization::IMAGENET),
            weights_key: key.map(str::to_string),
            ..authors()
        };
        read(&fixture(name), &said)
    };
    for name in ["legacy.pth", "beside.pth", "module.pth"] {
        let weights = read_with(name, None).unwrap();
        same(&weights.tensors, &expected);
    }
    let beside = read_with("beside.pth", None).unwrap();
    assert!(
        beside.notes.iter().any(|note| note.contains(
            "those under \"state_dict.module\"; it also has some under \"state_dict_ema\": --weights-key KEY"
        )),
        "{:?}",
        beside.notes
    );
    let average = read_with("beside.pth", Some("state_dict_ema")).unwrap();
    for (key, tensor) in &average.tensors {
        assert_eq!(*tensor, 2.0 * &expected[key], "{key}");
    }
    let message = read_with("beside.pth", Some("teacher"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no weights under \"teacher\""),
        "{message}"
    );
    let half = read_with("half.pth", None).unwrap();
    for (key, tensor) in &half.tensors {
        assert_eq!(*tensor, expected[key].to_kind(Kind::BFloat16), "{key}");
    }
}

#[test]
fn shards_of_any_name_are_read_by_an_index_that_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let expected = read_fixture("authors.pth").into_encoder().tensors;
    let said = ReadOptions {
        num_heads: Some(2),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let shards = [
        "vit-00001-of-00002.safetensors",
        "vit-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (expected.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    // Their names say how many there are.
    for from in ["", shards[0], shards[1]] {
        same(&read(&path(from), &said).unwrap().tensors, &expected);
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(path("vit.safetensors.index.json"), index).unwrap();
    for from in ["", "vit.safetensors.index.json", shards[0], shards[1]] {
        same(&read(&path(from), &said).unwrap().tensors, &expected);
    }
}

#[test]
fn shards_are_read_by_their_index_from_any_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let expected = read_fixture("authors.pth");
    let said = ReadOptions {
        norm_pix_loss: Some(true),
        normalization: Some(Normalization::IMAGENET),
        ..authors()
    };
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut map = serde_json::Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let half: BTreeMap<String, Tensor> = (expected.tensors.iter().skip(i).step_by(2))
            .map(|(key, tensor)| (format!("model.{key}"), tensor.shallow_clone()))
            .collect();
        write_tensors(&path(shard), &half, Default::default()).unwrap();
        map.extend(half.into_keys().map(|key| (key, shard.into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    std::fs::write(path("model.safetensors.index.json"), index).unwrap();
    for from in ["", "model.safetensors.index.json", shards[0], shards[1]] {
        let weights = read(&path(from), &said).unwrap();
        same(&weights.tensors, &expected.tensors);
    }
    std::fs::remove_file(path(shards[1])).unwrap();
    let message = read(folder.path(), &said).unwrap_err().to_string();
    assert!(
        message.contains(
            "names \"model-00002-of-00002.safetensors\", which is not beside it: fetch it"
        ),
        "{message}"
    );

    // Of torch.save, as Hugging Face wrote them before.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixture("legacy.pth"),
        folder.path().join("pytorch_model-00001-of-00001.bin"),
    )
    .unwrap();
    let map: serde_json::Map<_, _> = (expected.tensors.keys())
        .map(|key| {
            (
                format!("model.{key}"),
                "pytorch_model-00001-of-00001.bin".into(),
            )
        })
        .collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).unwrap();
    same(
        &read(folder.path(), &said).unwrap().tensors,
        &expected.tensors,
    );
}

#[test]
fn damaged_files_of_torch_save_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("damaged.pth");
    let whole = std::fs::read(fixture("authors.pth")).unwrap();
    let try_read = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        read(&file, &authors())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for len in [0, 1, 4, 100, whole.len() / 2, whole.len() - 30] {
        let message = try_read(&whole[..len]).unwrap_err();
        assert!(message.contains("damaged.pth"), "{message}");
        assert!(message.contains("not a complete"), "{message}");
    }
    // One byte of the weights: the archive's checksums tell.
    let at = |needle: &[u8]| {
        whole
            .windows(needle.len())
            .position(|window| window == needle)
            .unwrap()
    };
    let number =
        read_fixture("authors.pth").tensors["decoder_pred.weight"].double_value(&[0, 0]) as f32;
    let mut changed = whole.clone();
    changed[at(&number.to_le_bytes())] ^= 1;
    assert!(try_read(&changed).unwrap_err().contains("not a complete"));
    // Any byte of the pickle and of the directory: refused or the same, without a panic.
    for i in (0..2000).step_by(7).chain(whole.len() - 500..whole.len()) {
        let mut changed = whole.clone();
        changed[i] ^= 0x55;
        let _ = try_read(&changed);
    }
}

#[test]
fn shards_without_an_index_are_read_if_all_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let expected = read_fixture("authors.pth").into_encoder().tensors;
    let said = ReadOptions {
        num_heads: Some(2),
        normalization: Some(Normalization::IMAGENET),
        ..ReadOptions::default()
    };
    let name = |i: usize| format!("model-0000{i}-of-00003.safetensors");
    let write = |i: usize, parts: &[usize], factor: f64| {
        let shard = (expected.iter().enumerate())
            .filter(|(place, _)| parts.contains(&(1 + place % 3)))
            .map(|(_, (key, tensor))| (key.clone(), tensor * factor))
            .collect();
        write_tensors(&path(&name(i)), &shard, Default::default()).unwrap();
    };
    let fails = |from: &str, expected: &str| {
        let message = read(&path(from), &said).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    write(2, &[2], 1.0);
    for from in ["", &name(2)] {
        fails(
            from,
            "fetch model-00001-of-00003.safetensors, model-00003-of-00003.safetensors, too",
        );
    }
    write(1, &[1], 1.0);
    write(3, &[3], 1.0);
    for from in ["", &name(1), &name(3)] {
        same(&read(&path(from), &said).unwrap().tensors, &expected);
    }
    // With numbers that are not padded.
    let rename = |from: &str, to: &str| std::fs::rename(path(from), path(to)).unwrap();
    rename(&name(1), "model-1-of-00003.safetensors");
    same(&read(folder.path(), &said).unwrap().tensors, &expected);
    rename("model-1-of-00003.safetensors", &name(1));
    // Of two models whose names are alike.
    write(3, &[2, 3], 2.0);
    fails("", "with other numbers than another part of the model");
    std::fs::copy(path(&name(1)), path("other-1-of-1.safetensors")).unwrap();
    fails("", "parts of several models in it, `model` and `other`");
}

#[test]
fn a_pickled_file_is_described_by_what_is_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(fixture("authors.pth"), path("pytorch_model.bin")).unwrap();
    let config = serde_json::json!({
        "architecture": "vit_base_patch16_224",
        "model_args": {"num_heads": 4, "img_size": 12},
        "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    });
    std::fs::write(path("config.json"), config.to_string()).unwrap();
    let said = ReadOptions {
        part: Some(Part::Encoder),
        ..ReadOptions::default()
    };
    for from in ["", "pytorch_model.bin"] {
        let weights = read(&path(from), &said).unwrap();
        assert_eq!(weights.config.num_heads, 4);
        assert_eq!(weights.normalization.mean[..], [0.5, 0.4, 0.3]);
    }
}
