//! Progress bars on standard error; invisible where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` things of this name; without a total, a count.
pub fn bar(total: Option<u64>, things: &str) -> ProgressBar {
    // indicatif draws to standard error, and only if it is a terminal.
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            format!("{{wide_bar}} {{human_pos}}/{{human_len}} {things}, {{per_sec}}, {{eta}} left"),
        ),
        None => (
            ProgressBar::no_length(),
            format!("{{spinner}} {{human_pos}} {things}, {{per_sec}}, {{elapsed}}"),
        ),
    };
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
    bar.with_style(style)
}
