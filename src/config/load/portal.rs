//! What the pages for users look like.

use super::Loader;
use crate::base::colour::{Colour, READABLE};
use crate::config::file::PortalTable;
use crate::model::branding::{Accent, Branding, Logo};
use crate::model::client::plain_name;

/// Longer names leave no room on a telephone.
const LONGEST_NAME: usize = 40;

impl Loader<'_> {
    /// `None` if something is wrong with it.
    pub(super) fn branding(&mut self, table: &PortalTable) -> Option<Branding> {
        let (name, logo, accent) = (self.portal_name(table), self.logo(table), self.accent(table));
        Some(Branding { name: name?, logo: logo?, accent: accent? })
    }

    fn portal_name(&mut self, table: &PortalTable) -> Option<String> {
        let Some(name) = &table.name else { return Some(Branding::default().name) };
        let plain = plain_name(name).filter(|name| name.chars().count() <= LONGEST_NAME);
        if plain.is_none() {
            let message = format!("is empty, longer than {LONGEST_NAME} characters, or not all of it would be shown");
            self.problem("portal.name", message);
        }
        plain.map(str::to_owned)
    }

    fn logo(&mut self, table: &PortalTable) -> Option<Option<Logo>> {
        let Some(path) = &table.logo else { return Some(None) };
        let path = self.home.join(path);
        let logo = self
            .sources
            .read(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
            .and_then(|bytes| Logo::read(bytes).map_err(|why| format!("{} {why}", path.display())));
        logo.map(Some).map_err(|why| self.problem("portal.logo", why)).ok()
    }

    fn accent(&mut self, table: &PortalTable) -> Option<Option<Accent>> {
        let Some(text) = &table.accent else { return Some(None) };
        let colour = self.parsed::<Colour>("portal.accent", text, Colour::EXPECTED)?;
        match Accent::of(colour) {
            Ok(accent) => Some(Some(accent)),
            Err(contrast) => {
                self.problem_with_hint(
                    "portal.accent",
                    format!(
                        "{text:?} is hard to read: its contrast to the page is {contrast:.1}, and {READABLE} are needed"
                    ),
                    "choose a darker colour; dark pages get a lighter one by themselves",
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::load::load_text;
    use crate::model::branding::Branding;

    fn branding(portal: &str) -> Result<Branding, Vec<String>> {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("logo.svg"), "<svg xmlns='http://www.w3.org/2000/svg'></svg>")
            .expect("written");
        std::fs::write(home.path().join("logo.gif"), "GIF89a").expect("written");
        let key = |name: &str| (name == "KEY").then(|| "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned());
        let text = format!("[store]\nkeys = ['env:KEY']\n[portal]\n{portal}");
        let path = home.path().join("sidekey.toml");
        let place = format!("{}:", path.display());
        load_text(Path::new(&path), &text, &key)
            .map(|settings| settings.branding)
            .map_err(|problems| problems.iter().map(|problem| problem.to_string().replace(&place, "")).collect())
    }

    #[test]
    fn name_picture_and_colour_are_taken() {
        assert_eq!(branding(""), Ok(Branding::default()));
        let all = branding("name = 'Example Corp'\nlogo = 'logo.svg'\naccent = '#0b5d3b'\n").expect("valid");
        assert_eq!(all.name, "Example Corp");
        assert_eq!(all.logo.expect("there").media_type, "image/svg+xml");
        assert_eq!(all.accent.expect("there").light.to_string(), "#0b5d3b");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (portal, what) in [
            ("name = ''", "4:8: portal.name: is empty, longer than 40 characters, or not all of it would be shown"),
            ("name = 'Ex\u{202e}ample'", "portal.name: is empty"),
            ("logo = 'nothing.png'", "portal.logo: cannot read"),
            ("logo = 'logo.gif'", "is neither a PNG nor an SVG picture"),
            ("accent = 'red'", "portal.accent: \"red\" is not allowed here; expected a colour such as \"#1a5fb4\""),
            (
                "accent = '#ffcc00'",
                "portal.accent: \"#ffcc00\" is hard to read: its contrast to the page is 1.4, and 4.5 are needed",
            ),
        ] {
            let problems = branding(portal).expect_err(portal);
            assert!(problems.len() == 1 && problems[0].contains(what), "{portal}: {problems:?}");
        }
    }
}
