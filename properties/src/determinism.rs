//! Property 7: the same plan played twice gives the same run.

use crate::verdict::{Findings, Property, Verdict};

/// Compares the trace hashes of two runs of one plan.
#[must_use]
pub fn check(trace_hash_a: u128, trace_hash_b: u128) -> (Property, Verdict) {
    let mut findings = Findings::of(Property::Determinism);
    findings.require(trace_hash_a == trace_hash_b, || {
        format!("the same plan gave the trace hashes {trace_hash_a:032x} and {trace_hash_b:032x}")
    });
    findings.into_verdict(Property::Determinism)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_traces_hold_and_others_fail() {
        assert_eq!(check(7, 7), (Property::Determinism, Verdict::Held));
        let (property, verdict) = check(7, 8);
        assert_eq!(property, Property::Determinism);
        assert!(
            matches!(verdict, Verdict::Failed { violations, more: 0 } if violations.len() == 1)
        );
    }
}
