//! Which values of a file mean that nothing was measured there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which values of a file mean that nothing was measured there.
///
/// A missing value becomes NaN, so an image that may have some is of numbers.
#[derive(Copy, Clone, Debug, Default)]
pub enum Nodata {
    /// What the file itself says: the value in GDAL's tag 42113 of a TIFF file.
    #[default]
    Auto,
    /// Every value was measured, whatever the file says.
    None,
    /// This value, whatever the file says; NaN is allowed.
    Value(f64),
}

impl Nodata {
    /// What a missing value is written as in a file that says `tag` of it.
    ///
    /// The error says why the tag cannot be understood.
    pub(super) fn missing(self, tag: Option<&str>) -> Result<Option<Missing>, String> {
        match (self, tag) {
            (Nodata::None, _) | (Nodata::Auto, None) => Ok(None),
            (Nodata::Value(value), _) => Ok(Some(Missing::Number(value))),
            (Nodata::Auto, Some(tag)) => Missing::parse(tag),
        }
    }
}

/// What a missing value is written as, before it is a number of the file's own type.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Missing {
    /// As it was written, for types that hold more digits than an f64.
    Integer(i128),
    Number(f64),
}

impl Missing {
    /// Reads GDAL's tag: a number in words; some programs repeat it for each band.
    fn parse(tag: &str) -> Result<Option<Missing>, String> {
        let tag = tag.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let mut words = tag.split_whitespace();
        let Some(word) = words.next() else {
            return Ok(None);
        };
        // As C's printf writes NaN on Windows.
        const NAN: [&str; 4] = ["1.#qnan", "-1.#ind", "1.#ind", "-1.#qnan"];
        let missing = match word.parse() {
            Ok(integer) => Some(Missing::Integer(integer)),
            Err(_) if NAN.iter().any(|nan| word.eq_ignore_ascii_case(nan)) => {
                Some(Missing::Number(f64::NAN))
            }
            Err(_) => word.parse().ok().map(Missing::Number),
        };
        match missing.filter(|_| words.all(|other| other == word)) {
            Some(missing) => Ok(Some(missing)),
            None => Err(format!(
                "its nodata tag is {:?}, expected a number; set data.nodata to the value that means that nothing was \
                 measured, or to \"none\"",
                tag.chars().take(60).collect::<String>()
            )),
        }
    }

    /// The whole number that this is, if it is one.
    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Missing::Integer(value) => Some(value),
            Missing::Number(value) => (value.fract() == 0.0).then_some(value as i128),
        }
    }

    /// The nearest number.
    pub(super) fn number(self) -> f64 {
        match self {
            Missing::Integer(value) => value as f64,
            Missing::Number(value) => value,
        }
    }
}

impl PartialEq for Nodata {
    /// As they are written, so that NaN is NaN.
    fn eq(&self, other: &Nodata) -> bool {
        match (self, other) {
            (Nodata::Auto, Nodata::Auto) | (Nodata::None, Nodata::None) => true,
            (Nodata::Value(own), Nodata::Value(other)) => {
                own == other || own.is_nan() && other.is_nan()
            }
            _ => false,
        }
    }
}

impl fmt::Display for Nodata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nodata::Auto => f.write_str("auto"),
            Nodata::None => f.write_str("none"),
            Nodata::Value(value) if value.is_nan() => f.write_str("nan"),
            Nodata::Value(value) => write!(f, "{value}"),
        }
    }
}

impl FromStr for Nodata {
    type Err = String;

    fn from_str(text: &str) -> Result<Nodata, String> {
        match text.trim() {
            "auto" => Ok(Nodata::Auto),
            "none" => Ok(Nodata::None),
            number => match number.parse() {
                Ok(number) => Ok(Nodata::Value(number)),
                Err(_) => Err(format!(
                    "expected \"auto\", \"none\", \"nan\" or a number, found {text:?}"
                )),
            },
        }
    }
}

impl Serialize for Nodata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Nodata::Value(value) if value.is_finite() => serializer.serialize_f64(*value),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Nodata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nodata, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"auto\", \"none\", \"nan\" or a number")]
        enum Written {
            Integer(i64),
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Integer(value) => Ok(Nodata::Value(value as f64)),
            Written::Number(value) => Ok(Nodata::Value(value)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        #[derive(Serialize, Deserialize)]
        struct Section {
            nodata: Nodata,
        }
        for (text, expected) in [
            ("\"auto\"", Nodata::Auto),
            ("\"none\"", Nodata::None),
            ("\"nan\"", Nodata::Value(f64::NAN)),
            ("nan", Nodata::Value(f64::NAN)),
            ("-9999", Nodata::Value(-9999.0)),
            ("\"-9999\"", Nodata::Value(-9999.0)),
            ("-3.4e38", Nodata::Value(-3.4e38)),
        ] {
            let read = |text: &str| toml::from_str::<Section>(text).unwrap();
            let found = read(&format!("nodata = {text}"));
            assert_eq!(found.nodata, expected, "{text}");
            let again = read(&toml::to_string(&found).unwrap());
            assert_eq!(again.nodata, expected, "{text}");
        }
        let error = "off".parse::<Nodata>().unwrap_err();
        assert!(error.contains("\"none\""), "{error}");
    }

    #[test]
    fn gdal_s_tag_is_a_number_of_the_file_s_own_type() {
        use crate::image::number::Stored;
        let missing = |tag| Nodata::Auto.missing(Some(tag)).unwrap();
        assert_eq!(missing("-9999 \0").unwrap().integer(), Some(-9999));
        assert_eq!(missing(" "), None);
        for lowest in ["-3.4028234663852886e+38", "-3.40282e+38", "-3.402823e+38"] {
            assert_eq!(f32::of(missing(lowest).unwrap()), Some(f32::MIN));
        }
        assert_eq!(f32::of(missing("-3.4e38").unwrap()), Some(-3.4e38));
        assert!(f32::of(missing("nan").unwrap()).unwrap().is_nan());
        assert!(f64::of(missing("-1.#IND").unwrap()).unwrap().is_nan());
        assert_eq!(u8::of(missing("255.0").unwrap()), Some(255));
        assert_eq!(u8::of(missing("-9999").unwrap()), None);
        assert_eq!(u8::of(missing("0.5").unwrap()), None);
        assert_eq!(
            i64::of(missing("9223372036854775807").unwrap()),
            Some(i64::MAX)
        );
        assert_eq!(missing("0 0 0"), missing("0"));
        let error = Nodata::Auto.missing(Some("0 1")).unwrap_err();
        assert!(error.contains("data.nodata"), "{error}");
        assert_eq!(Nodata::None.missing(Some("0")), Ok(None));
    }
}
