//! What the demo says, to people and to programs.

use serde_json::Value;

/// Speaks to people, or keeps quiet for programs.
pub struct Narrator {
    /// Programs are listening.
    pub quiet: bool,
}

impl Narrator {
    /// One line.
    #[expect(clippy::print_stdout, reason = "the demo speaks to people")]
    pub fn say(&self, line: &str) {
        if !self.quiet {
            println!("{line}");
        }
    }

    /// A step of the journey, and what there is to see.
    pub fn step(&self, title: &str, lines: &[String]) {
        self.say(&format!("\n● {title}"));
        lines.iter().for_each(|line| self.say(&format!("  {line}")));
    }
}

/// Prints what programs read.
#[expect(clippy::print_stdout, reason = "programs read it there")]
pub fn answer(value: &Value) {
    println!("{value}");
}
