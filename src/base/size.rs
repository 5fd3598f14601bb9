//! Amounts of memory as people write them in TOML: `64KiB`, `512MiB`, `1GiB`.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// So many bytes, read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeText(pub u64);

/// What a size looks like, for messages.
pub const EXPECTED: &str = "a size such as \"64KiB\", \"512MiB\" or \"1GiB\"";

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl SizeText {
    /// For defaults.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for SizeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
        let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes > 0).map(Self).ok_or_else(|| EXPECTED.to_owned())
    }
}

impl fmt::Display for SizeText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(formatter, "{}{unit}", self.0 / bytes),
            None => write!(formatter, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-size", "pattern": "^[0-9]+(KiB|MiB|GiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_every_unit() {
        for text in ["64KiB", "512MiB", "1GiB"] {
            assert_eq!(text.parse::<SizeText>().expect("a size").to_string(), text);
        }
        assert_eq!("2048KiB".parse::<SizeText>().expect("a size").to_string(), "2MiB");
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "5", "MiB", "0MiB", "5 MiB", "-5MiB", "1.5GiB", "5MB", "5mib", "18446744073709551615KiB"] {
            assert!(text.parse::<SizeText>().is_err(), "{text:?}");
        }
    }
}
