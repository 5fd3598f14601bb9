//! What the operator's pages look like: a name, a picture, a colour. All of it is served by us.

use crate::base::colour::Colour;

/// How the pages look.
#[derive(Clone, Debug, PartialEq)]
pub struct Branding {
    /// What users know this place by.
    pub name: String,
    /// The picture beside the name.
    pub logo: Option<Logo>,
    /// The colour of buttons and links.
    pub accent: Option<Accent>,
}

impl Default for Branding {
    fn default() -> Self {
        Self { name: "Sidekey".to_owned(), logo: None, accent: None }
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    /// What it is: one of the two that are accepted.
    pub media_type: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Logo {
    /// The largest picture that is accepted.
    pub const LARGEST: usize = 256 * 1024;

    /// A picture by its first bytes; what is wrong with it otherwise.
    pub fn read(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > Self::LARGEST {
            return Err(format!("is larger than {} KiB", Self::LARGEST / 1024));
        }
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Ok(Self { media_type: "image/png", bytes });
        }
        let text = std::str::from_utf8(&bytes).unwrap_or_default().to_lowercase();
        if !text.contains("<svg") || !text.trim_end().ends_with("</svg>") {
            return Err("is neither a PNG nor an SVG picture".to_owned());
        }
        // Nothing of this would run or load where it is shown; whoever has it in a picture should know.
        let foreign = ["<script", "<foreignobject", "javascript:", "<!entity", " onload", "@import", "href=\"http"];
        match foreign.iter().find(|foreign| text.contains(**foreign)) {
            Some(found) => Err(format!("holds {found:?}: a picture neither runs nor loads anything")),
            None => Ok(Self { media_type: "image/svg+xml", bytes }),
        }
    }
}

/// The colour of buttons and links, on light pages and on dark ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accent {
    /// On light pages; white can be read on it.
    pub light: Colour,
    /// On dark pages.
    pub dark: Colour,
}

impl Accent {
    /// What light pages have as their ground; the stylesheet says the same.
    pub const LIGHT_GROUND: Colour = Colour([0xfa, 0xf9, 0xf7]);
    /// And dark ones.
    pub const DARK_GROUND: Colour = Colour([0x23, 0x26, 0x2b]);

    /// From one colour, which must be readable on light pages.
    pub fn of(light: Colour) -> Result<Self, f64> {
        let contrast = light.contrast(Self::LIGHT_GROUND);
        let dark = light.lightened_for(Self::DARK_GROUND);
        if contrast < crate::base::colour::READABLE { Err(contrast) } else { Ok(Self { light, dark }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_what_they_hold() {
        let png = Logo::read(b"\x89PNG\r\n\x1a\nrest".to_vec()).expect("a picture");
        assert_eq!(png.media_type, "image/png");
        let svg = |inner: &str| Logo::read(format!("<?xml version='1.0'?>\n<svg>{inner}</svg>\n").into_bytes());
        assert_eq!(svg("<path d='M0 0'/>").expect("a picture").media_type, "image/svg+xml");
        for bad in ["<script>x</script>", "<a xlink:href=\"https://x\"/>", "<g ONLOAD='x'/>", "<foreignObject/>"] {
            assert!(svg(bad).expect_err(bad).contains("neither runs nor loads anything"), "{bad}");
        }
        assert_eq!(Logo::read(b"GIF89a".to_vec()), Err("is neither a PNG nor an SVG picture".to_owned()));
        assert_eq!(Logo::read(vec![0; Logo::LARGEST + 1]), Err("is larger than 256 KiB".to_owned()));
    }

    #[test]
    fn an_accent_can_be_read_on_both_grounds() {
        let accent = Accent::of("#0b5d3b".parse().expect("a colour")).expect("dark enough");
        assert!(accent.dark.contrast(Accent::DARK_GROUND) >= 4.5);
        assert!(Accent::of("#ffcc00".parse().expect("a colour")).is_err());
    }
}
