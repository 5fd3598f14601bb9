//! Pictures of our own drawing: no company's mark, and nothing to load. What they say stands beside them in words.

use maud::{Markup, PreEscaped, html};

use crate::base::digest::sha256;

/// A tile with the initials of a name. The colour is always the same for the same name.
pub fn tile(name: &str) -> Markup {
    let colour = sha256(name.as_bytes())[0] % 8;
    html! { span class={ "tile tile-" (colour) } aria-hidden="true" { (initials(name)) } }
}

/// The first letters of the first two words, or the first two letters of the only one.
fn initials(name: &str) -> String {
    let mut words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let (first, second) = (words.next().unwrap_or("?"), words.next());
    let letters: String = match second {
        Some(second) => first.chars().take(1).chain(second.chars().take(1)).collect(),
        None => first.chars().take(2).collect(),
    };
    letters.to_uppercase()
}

fn drawn(class: &str, path: &'static str) -> Markup {
    html! {
        svg class={ "icon " (class) } viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" {
            (PreEscaped(path))
        }
    }
}

/// All is well.
pub fn check() -> Markup {
    drawn(
        "good",
        r#"<path d="M3 8.5l3.2 3.2L13 4.8" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round"/>"#,
    )
}

/// Something needs attention.
pub fn alert() -> Markup {
    drawn(
        "bad",
        r#"<path d="M8 1.8L15 14H1z" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round"/><path d="M8 6v4M8 11.8v.4" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/>"#,
    )
}

/// Something is not there yet.
pub fn ring() -> Markup {
    drawn(
        "none",
        r#"<circle cx="8" cy="8" r="5.6" fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="2.6 2.2"/>"#,
    )
}

/// Something was left out.
pub fn dash() -> Markup {
    drawn("left-out", r#"<path d="M4 8h8" stroke="currentColor" stroke-width="2" stroke-linecap="round"/>"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initials_are_those_of_the_name() {
        for (name, letters) in [
            ("Example Workspace", "EW"),
            ("Example", "EX"),
            ("example 365", "E3"),
            ("X", "X"),
            ("a.b-c", "AB"),
            ("", "?"),
            ("élan", "ÉL"),
        ] {
            assert_eq!(initials(name), letters, "{name}");
        }
        assert_eq!(tile("Example").into_string(), tile("Example").into_string());
    }
}
