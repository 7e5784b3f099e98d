//! Pickles by hand: good ones, broken ones, hostile ones.

use proptest::prelude::*;

use super::*;

/// A pickle of protocol 2 with these instructions.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [&[0x80, 2], &parts.concat()[..], b"."].concat()
}

/// `'text'`, as an instruction.
fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn refuse(bytes: &[u8], expected: &str) {
    let message = Pickle::parse(bytes).unwrap_err();
    assert!(message.contains(expected), "{message}");
}

/// `('storage', torch.FloatStorage, '0', 'cpu', numel)` by reference.
fn storage(numel: u8) -> Vec<u8> {
    let parts: [&[u8]; 7] = [
        b"(",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &[b'K', numel],
        b"tQ",
    ];
    parts.concat()
}

#[test]
fn a_state_dictionary_is_read() {
    let parts: [&[u8]; 9] = [
        b"}(",
        &text("weight"),
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage(6),
        b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR",
        &text("epoch"),
        b"K\x07",
        &text("args"),
        b"cargparse\nNamespace\n)\x81}\x8c\x01aG\x3f\xf8\x00\x00\x00\x00\x00\x00sbu",
    ];
    let found = Pickle::parse(&pickle(&parts)).unwrap();
    let root = found.root();
    assert_eq!(found.get(root, "epoch"), Some(&Node::Int(7)));
    let Some(Node::Tensor {
        storage,
        offset: 0,
        size,
        stride,
    }) = found.get(root, "weight")
    else {
        panic!("{:?}", found.get(root, "weight"));
    };
    assert_eq!((&size[..], &stride[..]), (&[2, 3][..], &[3, 1][..]));
    let Node::Storage(storage) = found.node(*storage) else {
        panic!("no storage");
    };
    assert_eq!((storage.kind, storage.numel), (Kind::Float, 6));
    assert_eq!(found.node(storage.key), &Node::Text("0".into()));
    let arguments = found
        .get(root, "args")
        .and_then(|args| found.attributes(args));
    assert_eq!(found.get(arguments.unwrap(), "a"), Some(&Node::Float(1.5)));
}

#[test]
fn numbers_text_and_containers_are_read() {
    let check = |instructions: &[u8], expected: Node| {
        assert_eq!(
            *Pickle::parse(&pickle(&[instructions])).unwrap().root(),
            expected
        );
    };
    check(b"N", Node::None);
    check(b"\x88", Node::Bool(true));
    check(b"J\xfe\xff\xff\xff", Node::Int(-2));
    check(b"M\x01\x02", Node::Int(513));
    check(b"\x8a\x00", Node::Int(0));
    check(b"\x8a\x02\x00\xff", Node::Int(-256));
    check(b"\x8b\x01\x00\x00\x00\x05", Node::Int(5));
    check(b"\x8a\x09123456789", Node::Opaque);
    check(b"X\x02\x00\x00\x00\xc3\xa4", Node::Text("\u{e4}".into()));
    check(b"C\x01x", Node::Opaque);
    check(b"(K\x01K\x02t", Node::Sequence(vec![0, 1]));
    check(b"](K\x01K\x02e", Node::Sequence(vec![1, 2]));
    check(b"]K\x01a", Node::Sequence(vec![1]));
    check(b"(K\x01K\x02d", Node::Dict(vec![(0, 1)]));
    check(b"}K\x01K\x02s", Node::Dict(vec![(1, 2)]));
    check(b"K\x05q\x00h\x00\x86", Node::Sequence(vec![0, 0]));
    check(b"K\x05\x940h\x00", Node::Int(5));
    check(b"(K\x01K\x021K\x07", Node::Int(7));
    check(
        b"ctorch\nSize\nK\x01K\x02\x86\x85R",
        Node::Sequence(vec![3, 4]),
    );
}

#[test]
fn what_means_nothing_here_is_kept_and_never_run() {
    let check = |instructions: &[&[u8]], unknown: &[&str]| {
        let found = Pickle::parse(&pickle(instructions)).unwrap();
        assert_eq!(found.unknown(), unknown);
        assert!(found.tensors().unwrap().is_empty());
    };
    let marker = std::env::temp_dir().join(format!("ran-{}", std::process::id()));
    let command = format!("touch {}", marker.display());
    check(&[b"cos\nsystem\n(", &text(&command), b"tR"], &["os.system"]);
    check(&[b"(", &text(&command), b"ios\nsystem\n"], &["os.system"]);
    check(&[b"(cos\nsystem\n", &text(&command), b"o"], &["os.system"]);
    assert!(!marker.exists());
    check(
        &[&text("builtins"), &text("eval"), b"\x93"],
        &["builtins.eval"],
    );
    check(&[b"ctorch\nload\n"], &["torch.load"]);
    check(&[b"ctorch\ndevice\n\x8c\x03cpu\x85R"], &["torch.device"]);
    check(
        &[&text("collections"), &text("OrderedDict.fromkeys"), b"\x93"],
        &["collections.OrderedDict.fromkeys"],
    );
    // As pathlib, numpy, OmegaConf and datetime are written: called, with attributes and entries.
    check(
        &[b"cpathlib\nPosixPath\n(", &text("runs"), b"tR"],
        &["pathlib.PosixPath"],
    );
    check(
        &[
            b"comegaconf.dictconfig\nDictConfig\n)\x81}",
            &text("_content"),
            b"}sb",
        ],
        &["omegaconf.dictconfig.DictConfig"],
    );
    check(
        &[b"cdatetime\ndatetime\nC\x02xy\x85R"],
        &["datetime.datetime"],
    );
    check(&[b"ca\nB\n)}\x92"], &["a.B"]);
    check(&[b"\x82\x01"], &[]);
    check(&[b"Pid\n"], &[]);
    check(&[b"K\x01Q"], &[]);
    check(&[b"ctorch\nFloatStorage\n)R"], &[]);
    let name = format!("c{}\n{}\n", "m".repeat(500), "n");
    let found = Pickle::parse(&pickle(&[name.as_bytes()])).unwrap();
    assert!(
        found.unknown()[0].ends_with("mmm....n"),
        "{:?}",
        found.unknown()
    );

    refuse(&pickle(&[b"\xff"]), "0xff is no instruction");
    refuse(&[0x80, 9, b'.'], "pickle protocol 9, expected 0 to 5");
    refuse(
        &pickle(&[b"ctorch._utils\n_rebuild_tensor_v2\n)R"]),
        "a tensor that is not made of",
    );
}

#[test]
fn broken_pickles_are_refused_where_they_break() {
    refuse(b"", "1 bytes are announced and 0 are left, at byte 0");
    refuse(&[0x80, 2, b'N'], "at byte 3");
    refuse(&pickle(&[]), "finds nothing on the stack");
    refuse(&pickle(&[b"a"]), "finds nothing on the stack");
    refuse(&pickle(&[b"NNa"]), "what is no list");
    refuse(&pickle(&[b"NNNs"]), "what is no dictionary");
    refuse(&pickle(&[b"}(Nu"]), "a key without a value");
    refuse(&pickle(&[b"t"]), "finds no mark");
    // What lies below a mark is not to be taken.
    refuse(&pickle(&[b"N(0"]), "finds nothing on the stack");
    refuse(&pickle(&[b"h\x07"]), "nothing is remembered as 7");
    refuse(&pickle(&[b"NNb"]), "attributes are given to what has none");
    refuse(&pickle(&[b"cnever"]), "a name or number that does not end");
    for length in [
        b"X\xff\xff\xff\xff",
        b"T\x00\x00\x00\x10",
        b"B\xff\xff\xff\x7f",
    ] {
        refuse(&pickle(&[length]), "are left");
    }
    refuse(
        &pickle(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"]),
        "18446744073709551615 bytes",
    );
    refuse(&pickle(&[b"\x8b\xff\xff\xff\xff"]), "4294967295 bytes");
}

#[test]
fn bombs_cost_no_more_than_their_size() {
    // Each list holds the one before twice: 2^1000 values, for who would follow them all.
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..1000 {
        bomb.extend(b"h\x00h\x00\x86q\x00");
    }
    let found = Pickle::parse(&pickle(&[&bomb])).unwrap();
    assert_eq!(found.nodes.len(), 1001);

    // As deep as it is long.
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    assert_eq!(
        Pickle::parse(&pickle(&[&deep])).unwrap().nodes.len(),
        100_000
    );

    // A list in itself.
    let cycle = Pickle::parse(&pickle(&[b"]q\x00h\x00a"])).unwrap();
    assert_eq!(*cycle.root(), Node::Sequence(vec![0]));

    // A long name, referred to again and again, is stored once.
    let long = "x".repeat(200);
    let mut many = [
        &b"("[..],
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text(&long),
        &text("cpu"),
        b"K\x01tq\x00",
    ]
    .concat();
    for _ in 0..1000 {
        many.extend(b"h\x00Q0");
    }
    let found = Pickle::parse(&pickle(&[&many])).unwrap();
    let texts = found
        .nodes
        .iter()
        .filter(|node| matches!(node, Node::Text(_)));
    // That name, and what is said once of the storage and its class.
    assert_eq!(texts.count(), 5);

    // More names for one tensor than anybody could list.
    let mut names = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage(2)[..],
        b"K\x00K\x02\x85K\x01\x85\x89NtRq\x00",
    ]
    .concat();
    for _ in 0..40 {
        names.extend(b"}(\x8c\x01ah\x00\x8c\x01bh\x00uq\x00");
    }
    let found = Pickle::parse(&pickle(&[&names])).unwrap();
    assert!(found.tensors().is_err());
}

/// A tensor of one number.
fn tensor() -> Vec<u8> {
    let parts: [&[u8]; 3] = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage(1),
        b"K\x00K\x01\x85K\x01\x85\x89}tR",
    ];
    parts.concat()
}

#[test]
fn what_knows_what_it_is_part_of_is_followed_once() {
    let names = |parts: &[&[u8]]| Pickle::parse(&pickle(parts)).unwrap().tensors();
    let found = |parts: &[&[u8]]| Vec::from_iter(names(parts).unwrap().into_keys());
    // Beside weights, settings of which each knows its parent, as OmegaConf's.
    let settings = [
        b"cm\nNode\n)\x81q\x05}(",
        &text("_content")[..],
        b"cm\nNode\n)\x81}(",
        &text("_parent"),
        b"h\x05",
        &text("_root"),
        b"h\x05ubub",
    ]
    .concat();
    let parts: [&[u8]; 6] = [
        b"}(",
        &text("weight"),
        &tensor(),
        &text("cfg"),
        &settings,
        b"u",
    ];
    assert_eq!(found(&parts), ["weight"]);
    // A model and its trainer, which know each other: the model's names, each once by every way.
    let trainer = [
        b"}q\x06(",
        &text("model")[..],
        b"}(",
        &text("weight"),
        &tensor(),
        &text("trainer"),
        b"h\x06uu",
    ]
    .concat();
    assert_eq!(found(&[&trainer]), ["model.weight"]);
    // What is shared without end leads to more names than are read.
    let mut bomb = [b"}(", &text("a")[..], &tensor(), b"uq\x07"].concat();
    for _ in 0..60 {
        let twice: [&[u8]; 6] = [b"}(", &text("a"), b"h\x07", &text("b"), b"h\x07", b"uq\x07"];
        bomb.extend(twice.concat());
    }
    assert!(names(&[&bomb]).unwrap_err().contains("more names"));
}

/// The pickle of the committed checkpoint.
fn checkpoint() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/formats/authors.pth"
    );
    let file = std::fs::read(path).unwrap();
    let start = file
        .windows(2)
        .position(|bytes| bytes == [0x80, 2])
        .unwrap();
    let end = file
        .windows(4)
        .position(|bytes| bytes == b"PK\x07\x08")
        .unwrap();
    file[start..end].to_vec()
}

#[test]
fn the_pickle_of_a_checkpoint_is_read() {
    let found = Pickle::parse(&checkpoint()).unwrap();
    assert_eq!(found.get(found.root(), "epoch"), Some(&Node::Int(7)));
    let arguments = found.get(found.root(), "args").unwrap();
    assert!(found.attributes(arguments).is_some());
    assert_eq!(found.unknown(), ["argparse.Namespace"]);
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pickle::parse(&bytes);
    }

    #[test]
    fn random_instructions_do_not_panic(
        instructions in proptest::collection::vec(
            proptest::sample::select(b"(.012NJKMGXUCB)]}tleadsuhjqrcRbQ\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x91\x93\x94\n\x00\x01".to_vec()),
            0..100,
        ),
    ) {
        let _ = Pickle::parse(&instructions);
    }

    #[test]
    fn changed_checkpoints_do_not_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = checkpoint();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(tensors) = Pickle::parse(&bytes).and_then(|pickle| pickle.tensors()) {
            prop_assert!(tensors.len() < bytes.len());
        }
    }
}

#[test]
fn numbers_are_found_by_text_as_protocol_0_has_it() {
    let parts: [&[u8]; 4] = [
        b"(dV",
        b"weight\nctorch._utils\n_rebuild_tensor_v2\n(P('storage', <class 'torch.HalfStorage'>, '3', 'cuda:0', 6)\n",
        b"I0\n(L2L\nI3\nt(I3\nI1\ntI00\nccollections\nOrderedDict\n(tRtRs",
        b".",
    ];
    let found = Pickle::parse(&parts.concat()).unwrap();
    let Some(Node::Tensor { storage, size, .. }) = found.get(found.root(), "weight") else {
        panic!("{:?}", found.get(found.root(), "weight"));
    };
    assert_eq!(size[..], [2, 3]);
    let Node::Storage(storage) = found.node(*storage) else {
        panic!("no storage");
    };
    assert_eq!((storage.kind, storage.numel), (Kind::Half, 6));
    assert_eq!(found.node(storage.key), &Node::Text("3".into()));
    // What is no such text is none.
    let other = Pickle::parse(b"P('storage', 7)\n.").unwrap();
    assert_eq!(other.root(), &Node::Opaque);
}

#[test]
fn what_modules_know_of_themselves_is_found() {
    let module =
        |attributes: &[u8]| [b"cm\nModule\n)\x81}(".as_slice(), attributes, b"ub"].concat();
    let attention = module(&[&text("num_heads")[..], b"K\x0c"].concat());
    let parts = [
        &text("_modules")[..],
        b"}(",
        &text("attn"),
        &attention,
        b"u",
    ]
    .concat();
    let root = [b"}(".as_slice(), &text("model"), &module(&parts), b"u"].concat();
    let found = Pickle::parse(&pickle(&[&root])).unwrap();
    assert_eq!(
        found.attribute("model.attn.num_heads"),
        Some(&Node::Int(12))
    );
    assert_eq!(found.attribute("model.mlp.num_heads"), None);
    assert_eq!(found.attribute("attn.num_heads"), None);
}
