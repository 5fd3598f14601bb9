//! Templates: texts in which `{name}` stands for a value.

use serde_json::{Map, Value};

use crate::profile::alphanumeric;
use crate::random;

/// What a name stands for; nothing where there is no such value this time.
pub(crate) type Values<'v> = &'v dyn Fn(&str) -> Option<Value>;

/// The template with its values. A text that is one name and nothing else becomes the value itself, whatever its type; where there is
/// none, the field or the item is left out.
pub(crate) fn filled(template: &Value, values: Values<'_>) -> Option<Value> {
    match template {
        Value::Object(fields) => {
            let filled = fields.iter().filter_map(|(name, value)| Some((name.clone(), filled(value, values)?)));
            Some(Value::Object(filled.collect::<Map<String, Value>>()))
        }
        Value::Array(items) => Some(items.iter().filter_map(|item| filled(item, values)).collect()),
        Value::String(text) => match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if is_name(name) => values(name),
            _ => Some(Value::String(filled_text(text, values))),
        },
        other => Some(other.clone()),
    }
}

/// The text with its values; without those that there are not.
pub(crate) fn filled_text(template: &str, values: Values<'_>) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        match after.split_once('}') {
            Some((name, after)) if is_name(name) => {
                match values(name) {
                    Some(Value::String(value)) => text.push_str(&value),
                    Some(value) => text.push_str(&value.to_string()),
                    None => {}
                }
                rest = after;
            }
            _ => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// A new value that looks like this.
pub(crate) fn value_like(look: &str) -> String {
    filled_text(look, &|name| {
        let (kind, length) = name.split_once(':')?;
        let length = length.parse().ok()?;
        Some(Value::String(match kind {
            "alphanumeric" => alphanumeric(length),
            "hexadecimal" => random::hex_digits(length),
            _ => random::characters(length),
        }))
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_type_and_what_is_not_there_is_left_out() {
        let values = |name: &str| match name {
            "seconds" => Some(json!(60)),
            "user" => Some(json!("ada")),
            _ => None,
        };
        let template = json!({"in": "{seconds}", "none": "{none}", "text": "{user} in {seconds}s {} {a b}", "list": ["{none}", 1]});
        let expected = json!({"in": 60, "text": "ada in 60s {} {a b}", "list": [1]});
        assert_eq!(filled(&template, &values), Some(expected));
    }

    #[test]
    fn tokens_look_as_they_should() {
        let token = value_like("lin_{hexadecimal:64}_{alphanumeric:3}");
        assert_eq!((token.len(), token.starts_with("lin_")), (4 + 64 + 1 + 3, true));
        assert_ne!(token, value_like("lin_{hexadecimal:64}_{alphanumeric:3}"));
    }
}
