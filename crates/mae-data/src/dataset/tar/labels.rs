//! What `.cls` and `.json` files say of the class of an image.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiter::JsonValue;

/// A class as it was written; numbers are sorted before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Number(u64),
    Name(String),
}

/// A file that gives an image no label though it was written to.
#[derive(Debug)]
pub(super) struct BadLabel {
    /// Its path in the shard.
    pub(super) member: String,
    /// What is in it, in words.
    pub(super) found: String,
}

/// Images whose `.cls` and `.json` files give different labels of one kind: numbers, or names.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    count: usize,
    /// The first of them, with both labels.
    first: Option<String>,
}

impl Conflicts {
    /// Compares the labels of one image; a number and a name may mean the same class.
    pub(super) fn see(&mut self, cls: &Label, json: &Label, name: impl FnOnce() -> String) {
        let is_of_one_kind = matches!(
            (cls, json),
            (Label::Number(_), Label::Number(_)) | (Label::Name(_), Label::Name(_))
        );
        if !is_of_one_kind || cls == json {
            return;
        }
        self.count += 1;
        self.first.get_or_insert_with(|| {
            let [cls, json] = [cls.name(), json.name()];
            format!("{} with {cls:?} and {json:?}", name())
        });
    }

    /// Counts those of a later shard, too.
    pub(super) fn append(&mut self, later: Conflicts) {
        self.count += later.count;
        self.first = self.first.take().or(later.first);
    }

    /// What to say of them.
    pub(super) fn note(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        let what = match self.count {
            1 => format!("1 image has a .cls and a .json file with different labels, {first}"),
            count => format!(
                "{count} images have .cls and .json files with different labels, the first {first}"
            ),
        };
        Some(format!(
            "{what}: the .cls files are believed; correct or remove what is wrong"
        ))
    }
}

/// The classes that occur, in order, and the place of each label among them; both empty if there are no labels.
pub(super) fn number(labels: &[Option<Label>]) -> (Vec<String>, Vec<Option<u32>>) {
    let classes: Vec<&Label> = BTreeSet::from_iter(labels.iter().flatten())
        .into_iter()
        .collect();
    if classes.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let place = |label: &Label| Some(classes.binary_search(&label).ok()? as u32);
    let places = (labels.iter())
        .map(|label| label.as_ref().and_then(place))
        .collect();
    (classes.into_iter().map(Label::name).collect(), places)
}

impl Label {
    pub(super) fn name(&self) -> String {
        match self {
            Label::Number(number) => number.to_string(),
            Label::Name(name) => name.clone(),
        }
    }

    /// Reads the content of a `.cls` file: a class number or name in text; else what it is instead.
    pub(super) fn of_cls(content: &[u8]) -> Result<Label, String> {
        Label::of_text(&text(content))
    }

    /// Reads the content of a `.json` file: an object's `label` or `cls`, if it has one; else what it is instead.
    pub(super) fn of_json(content: &[u8]) -> Result<Option<Label>, String> {
        let text = text(content);
        let text = text.trim();
        if text.is_empty() {
            return Err("an empty file".to_owned());
        }
        // As Python writes it, with NaN and Infinity.
        let value = JsonValue::parse(text.as_bytes(), true)
            .map_err(|error| format!("no JSON: {}", error.description(text.as_bytes())))?;
        let JsonValue::Object(object) = value else {
            return Ok(None);
        };
        let value = |key: &str| {
            let (_, value) = object.iter().rfind(|(name, _)| name == key)?;
            (*value != JsonValue::Null).then_some(value)
        };
        match value("label").or_else(|| value("cls")) {
            Some(value) => Label::of_value(value).map(Some),
            None => Ok(None),
        }
    }

    fn of_value(value: &JsonValue) -> Result<Label, String> {
        match value {
            JsonValue::Int(number) => Label::of_text(&number.to_string()),
            JsonValue::BigInt(number) => Label::of_text(&number.to_string()),
            // 3 becomes 3.0 in a table with gaps.
            JsonValue::Float(number) => Label::of_text(&number.to_string()),
            JsonValue::Str(text) => Label::of_text(text),
            JsonValue::Bool(value) => Err(value.to_string()),
            JsonValue::Array(_) => Err("a list".to_owned()),
            JsonValue::Object(_) => Err("an object".to_owned()),
            JsonValue::Null => Err("null".to_owned()),
        }
    }

    /// A number is one however it is written: `3`, ` 3`, `3.0` and `03` are the same.
    fn of_text(text: &str) -> Result<Label, String> {
        const SHOWN: usize = 40;
        let text = text.trim().trim_end_matches('\0');
        let shown = || format!("{:?}", text.chars().take(SHOWN).collect::<String>());
        if text.is_empty() {
            return Err("an empty file".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err(shown());
        }
        if text.eq_ignore_ascii_case("nan") {
            return Err(format!("{}, which stands for no label", shown()));
        }
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = !whole.is_empty()
            && (whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit());
        if !is_number {
            return Ok(Label::Name(text.to_owned()));
        }
        if fraction.bytes().any(|digit| digit != b'0') {
            return Err(format!("{}, which is no whole number", shown()));
        }
        match whole.parse() {
            Ok(0) => Ok(Label::Number(0)),
            Ok(_) if is_negative => Err(format!("{}, which stands for no label", shown())),
            Ok(number) => Ok(Label::Number(number)),
            Err(_) => Ok(Label::Name(text.to_owned())),
        }
    }
}

/// Text in UTF-8 or in UTF-16 after a byte-order mark, else in Latin-1, in which every byte is a character.
fn text(content: &[u8]) -> Cow<'_, str> {
    let utf_16 = |rest: &[u8], word: fn([u8; 2]) -> u16| {
        let words: Vec<u16> = rest
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| word(bytes))
            .collect();
        Cow::Owned(String::from_utf16_lossy(&words))
    };
    match content {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => text_without_mark(rest),
        _ => text_without_mark(content),
    }
}

fn text_without_mark(content: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(content) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(content.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cls(content: &[u8]) -> String {
        match Label::of_cls(content) {
            Ok(label) => format!("{label:?}"),
            Err(found) => found,
        }
    }

    fn json(content: &str) -> String {
        match Label::of_json(content.as_bytes()) {
            Ok(label) => format!("{label:?}"),
            Err(found) => found,
        }
    }

    #[test]
    fn numbers_are_the_same_however_they_are_written() {
        for text in [
            "3",
            "3\n",
            " 3 ",
            "3.0",
            "3.",
            "+3",
            "003",
            "\u{feff}3",
            "3\r\n",
            "3\0",
        ] {
            assert_eq!(cls(text.as_bytes()), "Number(3)", "{text:?}");
        }
        assert_eq!(
            cls(b"\xff\xfe3\0\n\0"),
            "Number(3)",
            "UTF-16, as PowerShell writes it"
        );
        assert_eq!(cls(b"\xfe\xff\x003"), "Number(3)");
        assert_eq!(cls(b"-0"), "Number(0)");
        assert_eq!(cls(b"10735900"), "Number(10735900)", "an id of a species");
        assert_eq!(
            cls(b"99999999999999999999999"),
            "Name(\"99999999999999999999999\")"
        );
        for value in ["3", "3.0", "\"3\"", "3e0"] {
            assert_eq!(json(&format!("{{\"label\": {value}}}")), "Some(Number(3))");
        }
    }

    #[test]
    fn names_are_names_in_any_encoding() {
        assert_eq!(cls(b"n01440764"), "Name(\"n01440764\")");
        assert_eq!(cls("café\n".as_bytes()), "Name(\"café\")");
        assert_eq!(cls(b"caf\xe9"), "Name(\"café\")", "Latin-1");
        assert_eq!(cls(b"1e3"), "Name(\"1e3\")", "as a part of a digest may be");
        assert_eq!(
            json("{\"cls\": \"house cat\"}"),
            "Some(Name(\"house cat\"))"
        );
    }

    #[test]
    fn what_is_no_label_says_what_it_is() {
        assert_eq!(cls(b"-1"), "\"-1\", which stands for no label");
        assert_eq!(cls(b"-1.0\n"), "\"-1.0\", which stands for no label");
        assert_eq!(cls(b"NaN"), "\"NaN\", which stands for no label");
        assert_eq!(cls(b" \n"), "an empty file");
        assert_eq!(cls(b"3.5"), "\"3.5\", which is no whole number");
        assert_eq!(cls(b"\x03\0\x01\0"), "\"\\u{3}\\0\\u{1}\"");
        assert_eq!(cls(b"cat\ndog"), "\"cat\\ndog\"");
        assert_eq!(json(""), "an empty file");
        assert_eq!(json("\u{feff}"), "an empty file");
        assert!(json("{").starts_with("no JSON: EOF"), "{}", json("{"));
        assert_eq!(json("{\"label\": [1]}"), "a list");
        assert_eq!(json("{\"label\": true}"), "true");
        assert_eq!(
            json("{\"label\": NaN}"),
            "\"NaN\", which stands for no label"
        );
        assert_eq!(json("{\"label\": -1}"), "\"-1\", which stands for no label");
        let deep = "[".repeat(1_000_000);
        assert!(json(&deep).contains("recursion"), "{}", json(&deep));
    }

    #[test]
    fn other_values_of_json_are_of_no_concern() {
        assert_eq!(json("{\"similarity\": NaN, \"far\": -Infinity}"), "None");
        assert_eq!(
            json("{\"similarity\": NaN, \"label\": 3}"),
            "Some(Number(3))"
        );
        assert_eq!(
            json("{\"hash\": 18446744073709551616, \"cls\": 3}"),
            "Some(Number(3))"
        );
        assert_eq!(json("{\"label\": null, \"cls\": 3}"), "Some(Number(3))");
        assert_eq!(json("{\"label\": null}"), "None");
        assert_eq!(json("[1, 2]"), "None");
        let mut latin_1 = b"{\"caption\": \"caf\xe9\", \"label\": 3}".to_vec();
        assert_eq!(Label::of_json(&latin_1), Ok(Some(Label::Number(3))));
        latin_1.splice(0..0, *b"\xef\xbb\xbf");
        assert_eq!(Label::of_json(&latin_1), Ok(Some(Label::Number(3))));
    }

    #[test]
    fn labels_that_differ_are_counted() {
        let label = |text: &str| Label::of_cls(text.as_bytes()).unwrap();
        let mut conflicts = Conflicts::default();
        for (cls, json) in [("3", "3.0"), ("3", "cat"), ("cat", "cat")] {
            conflicts.see(&label(cls), &label(json), || unreachable!());
        }
        assert_eq!(conflicts.note(), None);
        conflicts.see(&label("3"), &label("4"), || "a.tar:1.jpg".to_owned());
        let note = conflicts.note().unwrap();
        assert!(
            note.starts_with("1 image has a .cls and a .json file"),
            "{note}"
        );
        let mut later = Conflicts::default();
        later.see(&label("cat"), &label("dog"), || "b.tar:1.jpg".to_owned());
        conflicts.append(later);
        let note = conflicts.note().unwrap();
        let first = "2 images have .cls and .json files with different labels, the first a.tar:1.jpg with \"3\" and \"4\"";
        assert!(note.starts_with(first), "{note}");
    }

    #[test]
    fn classes_are_those_that_occur() {
        let labels = ["30000", "7", "", "7"]
            .map(|text| Label::of_cls(text.as_bytes()).ok())
            .to_vec();
        let (classes, places) = number(&labels);
        assert_eq!(classes, ["7", "30000"]);
        assert_eq!(places, [Some(1), Some(0), None, Some(0)]);
        let (classes, places) = number(&[None, None]);
        assert!(classes.is_empty() && places.is_empty());
        let both = ["zebra", "10", "9", "ant"].map(|text| Label::of_cls(text.as_bytes()).ok());
        assert_eq!(number(&both).0, ["9", "10", "ant", "zebra"]);
    }
}
