//! What a browser without JavaScript finds on a page: where to go on to at once, and a form.

/// Where a page leads at once.
pub fn refresh(page: &str) -> Option<String> {
    between(page, "content=\"0;url=", "\"").map(unescaped)
}

/// A form, filled in.
pub struct Form {
    /// Where it is sent.
    pub action: String,
    /// What it says.
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// The first form of a page, with what is ticked there, sent by the button of this value.
    pub fn sent_by(page: &str, button: &str) -> Option<Self> {
        let (head, content) = between(page, "<form ", "</form>")?.split_once('>')?;
        let is_sent = |tag: &&str| match tag.split(' ').next() {
            Some("input") => tag.contains("type=\"hidden\"") || tag.contains(" checked"),
            Some("button") => attribute(tag, "value").as_deref() == Some(button),
            _ => false,
        };
        let tags = content.split('<').filter_map(|tag| tag.split('>').next()).filter(is_sent);
        let fields = tags.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?))).collect();
        Some(Self { action: attribute(&format!(" {head}"), "action")?, fields })
    }
}

/// What stands between two texts.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    between(tag, &format!(" {name}=\""), "\"").map(unescaped)
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
