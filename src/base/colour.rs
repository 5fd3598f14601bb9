//! Colours that people can read: how far two of them are apart, by WCAG 2.2.

use std::fmt;
use std::str::FromStr;

/// A colour as screens have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

/// What text needs against what is behind it (WCAG 2.2, success criterion 1.4.3, level AA).
pub const READABLE: f64 = 4.5;

impl Colour {
    /// What it looks like, for messages.
    pub const EXPECTED: &'static str = "a colour such as \"#1a5fb4\"";

    /// White.
    pub const WHITE: Self = Self([255; 3]);

    /// The contrast ratio, from 1 (the same) to 21 (black and white).
    pub fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// The same colour, mixed with so much white that it can be read on `ground`.
    pub fn lightened_for(self, ground: Self) -> Self {
        let steps = (0..=20).map(|step| self.mixed(Self::WHITE, f64::from(step) / 20.0));
        steps.clone().find(|mixed| mixed.contrast(ground) >= READABLE).unwrap_or(Self::WHITE)
    }

    fn mixed(self, other: Self, share: f64) -> Self {
        let mix = |at: usize| {
            let mixed = f64::from(self.0[at]) * (1.0 - share) + f64::from(other.0[at]) * share;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
            let byte = mixed.round() as u8;
            byte
        };
        Self([mix(0), mix(1), mix(2)])
    }

    /// Relative luminance, as WCAG 2.2 defines it.
    fn luminance(self) -> f64 {
        let linear = |byte: u8| {
            let share = f64::from(byte) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        let [red, green, blue] = self.0.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii());
        let byte = |at: usize| digits.and_then(|digits| u8::from_str_radix(&digits[at..at + 2], 16).ok());
        match (byte(0), byte(2), byte(4)) {
            (Some(red), Some(green), Some(blue)) if !text.contains('+') => Ok(Self([red, green, blue])),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(formatter, "#{red:02x}{green:02x}{blue:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_the_recommendation() {
        let black = Colour([0; 3]);
        assert!((Colour::WHITE.contrast(black) - 21.0).abs() < 0.01);
        assert!((Colour::WHITE.contrast(Colour::WHITE) - 1.0).abs() < 0.01);
        let grey: Colour = "#777777".parse().expect("a colour");
        assert!((grey.contrast(Colour::WHITE) - 4.48).abs() < 0.01, "{}", grey.contrast(Colour::WHITE));
    }

    #[test]
    fn a_dark_colour_is_made_readable_on_a_dark_ground() {
        let (blue, dark): (Colour, Colour) = ("#1a3f94".parse().expect("one"), "#16181b".parse().expect("one"));
        assert!(blue.contrast(dark) < READABLE && blue.lightened_for(dark).contrast(dark) >= READABLE);
        let light: Colour = "#8ab8f5".parse().expect("one");
        assert_eq!(light.lightened_for(dark), light, "what is readable stays as it is");
    }

    #[test]
    fn only_plain_colours_are_colours() {
        assert_eq!("#1a5fB4".parse::<Colour>().map(|colour| colour.to_string()).as_deref(), Ok("#1a5fb4"));
        for bad in ["", "#", "1a5fb4", "#1a5fb", "#1a5fb44", "#1a5fbg", "#+a5fb4", "red", "#é5fb4"] {
            assert!(bad.parse::<Colour>().is_err(), "{bad}");
        }
    }
}
