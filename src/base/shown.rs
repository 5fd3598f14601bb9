//! Texts of strangers, made fit to be shown.

/// Longer names are cut.
const LONGEST_NAME: usize = 100;

/// A stranger's text as it may be shown: in one line, not endless, and without what turns the writing around or hides.
pub fn shown(text: &str) -> String {
    let hides = |character: char| {
        character.is_control()
            || matches!(
                character,
                '\u{ad}'
                    | '\u{61c}'
                    | '\u{115f}'
                    | '\u{1160}'
                    | '\u{180e}'
                    | '\u{2800}'
                    | '\u{3164}'
                    | '\u{feff}'
                    | '\u{ffa0}'
            )
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(character, '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    let plain: String = text.chars().map(|character| if hides(character) { ' ' } else { character }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let words = words.join(" ");
    if words.chars().count() <= LONGEST_NAME {
        return words;
    }
    words.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}
