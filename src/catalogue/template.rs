//! `{name}` in declared texts.

use std::collections::BTreeMap;

use serde_json::Value;

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands for itself.
    Literal(String),
    /// Stands for a named value.
    Variable(String),
}

/// Splits a text into literals and `{name}`s. Braces that enclose no plain name stand for themselves.
pub fn parse(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, after) = (&rest[..open], &rest[open + 1..]);
        match after.find('}') {
            Some(close) if is_name(&after[..close]) => {
                literal.push_str(before);
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Variable(after[..close].to_owned()));
                rest = &after[close + 1..];
            }
            _ => {
                literal.push_str(before);
                literal.push('{');
                rest = after;
            }
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The names of the variables in a text.
pub fn variables(text: &str) -> Vec<String> {
    let variable = |piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Literal(_) => None,
    };
    parse(text).into_iter().filter_map(variable).collect()
}

/// Replaces the variables that `value_of` knows; the others stay as they are.
pub fn fill<'v>(text: &str, value_of: impl Fn(&str) -> Option<&'v str>) -> String {
    parse(text)
        .into_iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => literal,
            Piece::Variable(name) => value_of(&name).map_or_else(|| format!("{{{name}}}"), str::to_owned),
        })
        .collect()
}

/// Replaces variables in every text of a document.
pub fn fill_everywhere(value: &mut Value, values: &BTreeMap<String, String>) {
    match value {
        Value::String(text) if text.contains('{') => {
            *text = fill(text, |name| values.get(name).map(String::as_str));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_everywhere(item, values)),
        Value::Object(map) => map.values_mut().for_each(|item| fill_everywhere(item, values)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_fills() {
        assert_eq!(variables("/v3/company/{realm_id}/x/{y}"), ["realm_id", "y"]);
        assert_eq!(variables("no {Braces} {} { }"), Vec::<String>::new());
        let value = |name: &str| (name == "a").then_some("1");
        assert_eq!(fill("{a}-{b}-{a}", value), "1-{b}-1");
        assert_eq!(fill("{\"json\": {a}}", value), "{\"json\": 1}");
    }

    #[test]
    fn fills_a_whole_document() {
        let mut document = serde_json::json!({ "x": ["{a}", { "y": "{b}" }], "z": 1 });
        fill_everywhere(&mut document, &BTreeMap::from([("a".to_owned(), "A".to_owned())]));
        assert_eq!(document, serde_json::json!({ "x": ["A", { "y": "{b}" }], "z": 1 }));
    }
}
