//! What the commit records of a history say of the state behind them: one chain per partition, each
//! link made from the one before.

use crate::evidence::Commit;
use crate::moment::Forced;
use crate::verdict::Findings;
use std::collections::BTreeMap;

/// Judges the commit records of one partition.
pub(super) fn check(commits: &[&Commit], findings: &mut Findings) {
    snapshots(commits, findings);
    digests(commits, findings);
}

/// The commit records of all partitions name the same topic, partition count and configuration.
pub fn pinned(partitions: i32, commits: &[Commit], findings: &mut Findings) {
    let expected = i64::from(partitions);
    let first = commits.first();
    for commit in commits {
        findings.require(commit.partition_count == expected, || {
            format!(
                "{}: it pins {} partitions, the input topic has {expected}",
                place(commit),
                commit.partition_count
            )
        });
        let Some(first) = first else { continue };
        for (name, found, expected) in [
            ("topic", &commit.topic_id, &first.topic_id),
            ("fp", &commit.fingerprint, &first.fingerprint),
        ] {
            findings.require(found == expected, || {
                format!(
                    "{}: `{name}` is {found:?}, but {expected:?} in the {}",
                    place(commit),
                    place(first)
                )
            });
        }
    }
}

/// The snapshot that a commit names lies in the log at or before the commit, and none goes back to
/// an older one.
fn snapshots(commits: &[&Commit], findings: &mut Findings) {
    let mut newest = 0;
    for commit in commits {
        let at = commit.snapshot_offset;
        findings.require((0..=commit.offset).contains(&at), || {
            format!(
                "{}: its snapshot at offset {at} is not of what lies before it",
                place(commit)
            )
        });
        findings.require(at >= newest, || {
            format!(
                "{}: its snapshot is at offset {at}, one before it was at {newest}",
                place(commit)
            )
        });
        newest = newest.max(at);
    }
}

/// Equal states have equal digests, and what has read more has another one.
fn digests(commits: &[&Commit], findings: &mut Findings) {
    let mut by_state: BTreeMap<(i64, i64, Option<Forced>), &Commit> = BTreeMap::new();
    let mut by_digest: BTreeMap<&str, &Commit> = BTreeMap::new();
    for commit in commits {
        let state = (commit.offset, commit.sequence, commit.forced);
        let same = *by_state.entry(state).or_insert(commit);
        findings.require(same.digest == commit.digest, || {
            format!(
                "{}: its digest is {}, but {} in an earlier commit of the same state",
                place(commit),
                commit.digest,
                same.digest
            )
        });
        let known = *by_digest.entry(&commit.digest).or_insert(commit);
        findings.require(known.records == commit.records, || {
            format!(
                "{}: its digest {} is that of the {}, though {} records were processed, not {}",
                place(commit),
                commit.digest,
                place(known),
                commit.records,
                known.records
            )
        });
    }
}

fn place(commit: &Commit) -> String {
    format!(
        "commit record of partition {} at offset {}",
        commit.partition, commit.offset
    )
}

#[cfg(test)]
mod tests {
    use crate::history::History;
    use crate::truth::{failed, messages, set_commit, small};
    use crate::verdict::Property::ExactlyOnceOut;

    /// The story with one text of one commit record replaced is accused of this, and nothing else.
    fn accused(number: usize, from: &str, to: &str, why: &str) {
        let mut history = small();
        set_commit(&mut history, number, from, to);
        only(&history, why);
    }

    fn only(history: &History, why: &str) {
        let found = messages(history);
        assert_eq!(failed(history), [ExactlyOnceOut], "{found}");
        assert!(found.contains(why), "{found}");
    }

    #[test]
    fn a_snapshot_that_lies_beyond_its_commit_or_before_the_log_is_found() {
        accused(5, "\"at\":0", "\"at\":25", "is not of what lies before it");
        accused(0, "\"at\":0", "\"at\":-1", "is not of what lies before it");
    }

    #[test]
    fn a_snapshot_that_goes_back_is_found() {
        accused(1, "\"at\":0", "\"at\":13", "one before it was at 13");
    }

    #[test]
    fn a_commit_that_pins_another_partition_count_is_found() {
        accused(2, "\"parts\":2", "\"parts\":3", "it pins 3 partitions");
    }

    #[test]
    fn commits_of_another_topic_or_configuration_are_found() {
        accused(3, "\"topic\":\"t\"", "\"topic\":\"u\"", "`topic` is \"u\"");
        let zeros = "0".repeat(16);
        let ones = "1".repeat(16);
        let fingerprint = |digits: &str| format!("\"fp\":\"{digits}\"");
        accused(3, &fingerprint(&zeros), &fingerprint(&ones), "`fp` is");
    }

    #[test]
    fn one_state_with_two_digests_is_found() {
        let mut history = small();
        let again = history.commits[2].clone();
        history.commits.insert(3, again);
        assert_eq!(messages(&history), "");
        set_commit(&mut history, 3, "\"digest\":\"0", "\"digest\":\"f");
        only(&history, "in an earlier commit of the same state");
    }

    #[test]
    fn a_digest_that_stands_still_while_records_are_processed_is_found() {
        let mut history = small();
        let digest = |history: &History, number: usize| {
            let text = &history.commits[number].metadata;
            let at = text.find("\"digest\"").expect("it has one");
            text[at..at + 45].to_owned()
        };
        let (older, newer) = (digest(&history, 1), digest(&history, 2));
        set_commit(&mut history, 2, &newer, &older);
        only(&history, "records were processed, not");
    }
}
