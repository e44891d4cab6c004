//! Findings about a cluster, each with a verdict, what was found and the fix; as a table or as JSON.

use serde::Serialize;
use std::fmt;

/// What a finding means for exactly-once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// It works, until something fails that should be survived.
    Risky,
    /// Exactly-once, or any work at all, is not possible.
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Risky => "risky",
            Verdict::Wrong => "wrong",
        })
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it means.
    pub verdict: Verdict,
    /// Of what: `topic ticks`, `broker 1`.
    pub about: String,
    /// Which property.
    pub property: String,
    /// Its value.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub fix: String,
}

impl Finding {
    /// A finding that is as it must be.
    pub fn ok(about: &str, property: &str, found: impl ToString) -> Finding {
        Finding::new(Verdict::Ok, about, property, found, "")
    }

    /// A finding with a fix.
    pub fn new(
        verdict: Verdict,
        about: &str,
        property: &str,
        found: impl ToString,
        fix: impl ToString,
    ) -> Finding {
        Finding {
            verdict,
            about: about.to_owned(),
            property: property.to_owned(),
            found: found.to_string(),
            fix: fix.to_string(),
        }
    }
}

/// The worst verdict; `Ok` of nothing.
pub fn worst(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|finding| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

/// The findings as a table with aligned columns; fixes stand below their lines.
pub fn table(findings: &[Finding]) -> String {
    let width = |text: fn(&Finding) -> &str| {
        let widths = findings.iter().map(|finding| text(finding).chars().count());
        widths.max().unwrap_or(0)
    };
    let about = width(|finding| &finding.about);
    let property = width(|finding| &finding.property);
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!(
            "{:<5}  {:<about$}  {:<property$}  {}\n",
            finding.verdict, finding.about, finding.property, finding.found
        ));
        if !finding.fix.is_empty() {
            text.push_str(&format!("         fix: {}\n", finding.fix));
        }
    }
    text
}

/// Prints the findings, and a line with their sum where they are a table.
///
/// # Errors
/// Never: plain fields serialise.
pub fn print(findings: &[Finding], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let json = serde_json::to_string_pretty(findings)?;
        println!("{json}");
        return Ok(());
    }
    print!("{}", table(findings));
    let count = |verdict| {
        let of_it = findings.iter().filter(|finding| finding.verdict == verdict);
        of_it.count()
    };
    println!(
        "\n{} ok, {} risky, {} wrong",
        count(Verdict::Ok),
        count(Verdict::Risky),
        count(Verdict::Wrong)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_line_a_finding_and_its_fix_below() {
        let findings = [
            Finding::ok("topic ticks", "partitions", 6),
            Finding::new(Verdict::Risky, "broker 1", "x", "1", "set x to 2"),
        ];
        let expected = "ok     topic ticks  partitions  6\n\
                        risky  broker 1     x           1\n         fix: set x to 2\n";
        assert_eq!(table(&findings), expected);
        assert_eq!(worst(&findings), Verdict::Risky);
        assert_eq!(worst(&[]), Verdict::Ok);
    }
}
