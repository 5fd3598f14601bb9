//! Durations as people write them in TOML and on the command line: `30s`, `5m`, `1h`, `30d`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A duration read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

/// What a duration looks like, for messages.
pub const EXPECTED: &str = "a duration such as \"500ms\", \"30s\", \"5m\", \"1h\" or \"30d\"";

impl FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
        let millis_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(EXPECTED.to_owned()),
        };
        // A thousand years: beyond it, arithmetic with moments would lose its meaning.
        match number.checked_mul(millis_per_unit) {
            Some(millis) if millis <= 31_557_600_000_000 => Ok(Self(Duration::from_millis(millis))),
            _ => Err("a duration of at most 1000 years".to_owned()),
        }
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        for (size, unit) in units {
            if millis >= size && millis.is_multiple_of(size) {
                return write!(formatter, "{}{unit}", millis / size);
            }
        }
        formatter.write_str("0s")
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_every_unit() {
        for text in ["500ms", "30s", "5m", "1h", "30d"] {
            assert_eq!(text.parse::<DurationText>().expect("a duration").to_string(), text);
        }
        assert_eq!("90s".parse::<DurationText>().expect("a duration").0, Duration::from_secs(90));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "5min", "18446744073709551615d", "400000d"] {
            assert!(text.parse::<DurationText>().is_err(), "{text:?}");
        }
    }
}
