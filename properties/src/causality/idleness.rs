//! Whether a partition was idle when its watermark was forced.

use super::CLOCK_TOLERANCE_MS;
use crate::case::Case;
use crate::history::Facts;
use crate::moment::Forced;
use crate::verdict::Findings;

/// Offset and Kafka timestamp (milliseconds) of a record.
type Stood = (i64, i64);

/// What stood in the log around each forced advance of a partition.
///
/// A forced advance is legitimate: the partition was read to the end that a consumer sees, and
/// nothing came for as long as the idle timeout. The worker forces its clock (or the log's, if that is behind) less the
/// out-of-orderness, so the advance tells its clock, and the broker's timestamps tell what was in
/// the log then.
///
/// The newest records stay invisible while replication is stalled or a producer's transaction is
/// open, so a worker that has read everything it can see may rightly take the partition for idle.
/// Lateness is exact regardless: such an advance makes no record too late that came before its
/// clock. What is older than [`Facts::hidden_ms_max`] was visible, and an advance over it has taken
/// a backlog for idleness.
#[derive(Debug)]
pub struct Idleness {
    around: Vec<Around>,
    /// Advances before this one lie before the next record.
    passed: usize,
    /// The latest of `unread_before_ms` of those.
    unread_before_ms: i64,
    newest: Option<Stood>,
}

#[derive(Debug)]
struct Around {
    forced: Forced,
    clock_ms: i64,
    /// A record behind the advance that came before this was visible, and is unread.
    unread_before_ms: i64,
    before: Option<Stood>,
    unread: Option<Stood>,
}

impl Idleness {
    /// Begins; `forced` is sorted by (position, watermark).
    #[must_use]
    pub fn new(facts: &Facts, forced: &[Forced]) -> Self {
        let around = forced.iter().map(|forced| {
            let clock_ms = forced
                .watermark_ms
                .saturating_add(facts.rules.max_out_of_orderness_ms);
            Around {
                forced: *forced,
                clock_ms,
                unread_before_ms: clock_ms
                    .saturating_sub(facts.hidden_ms_max)
                    .saturating_sub(tolerance_ms(facts)),
                before: None,
                unread: None,
            }
        });
        Self {
            around: around.collect(),
            passed: 0,
            unread_before_ms: i64::MIN,
            newest: None,
        }
    }

    /// The next record of the log.
    pub fn record(&mut self, offset: i64, timestamp_ms: i64) {
        while let Some(around) = self.around.get_mut(self.passed) {
            if around.forced.position > offset {
                break;
            }
            around.before = self.newest;
            self.unread_before_ms = self.unread_before_ms.max(around.unread_before_ms);
            self.passed += 1;
        }
        if timestamp_ms < self.unread_before_ms {
            let over = self.around[..self.passed]
                .iter_mut()
                .filter(|around| timestamp_ms < around.unread_before_ms);
            for around in over {
                around.unread.get_or_insert((offset, timestamp_ms));
            }
        }
        self.newest = Some((offset, timestamp_ms));
    }

    /// Complains about advances of a partition that was not idle.
    pub(super) fn judge(&self, case: &Case<'_>, findings: &mut Findings) {
        let committed = case.last_commit().map(|commit| commit.offset);
        for (number, around) in self.around.iter().enumerate() {
            let before = if number < self.passed {
                around.before
            } else {
                self.newest
            };
            around.judge(case, before, findings);
            let Around { forced, .. } = around;
            findings.require(committed >= Some(forced.position), || {
                format!(
                    "partition {}: forced advance {forced} stands behind the last committed offset \
                     {committed:?}",
                    case.partition
                )
            });
        }
    }
}

fn tolerance_ms(facts: &Facts) -> i64 {
    CLOCK_TOLERANCE_MS.saturating_add(facts.clock_error_ms)
}

impl Around {
    fn judge(&self, case: &Case<'_>, before: Option<Stood>, findings: &mut Findings) {
        let Self {
            forced, clock_ms, ..
        } = self;
        let partition = case.partition;
        if let Some((offset, timestamp_ms)) = self.unread {
            findings.add(|| {
                format!(
                    "partition {partition}: forced advance {forced} at clock {clock_ms}, but offset \
                     {offset} was in the log since {timestamp_ms}: an unread backlog is not idleness"
                )
            });
        }
        let idle_timeout_ms = case.facts.rules.idle_timeout_ms;
        let latest_ms = clock_ms
            .saturating_sub(idle_timeout_ms)
            .saturating_add(tolerance_ms(case.facts));
        if let Some((offset, timestamp_ms)) = before.filter(|(_, came_ms)| *came_ms > latest_ms) {
            findings.add(|| {
                format!(
                    "partition {partition}: forced advance {forced} at clock {clock_ms}, but offset \
                     {offset} had come at {timestamp_ms}, less than the idle timeout of \
                     {idle_timeout_ms} ms before"
                )
            });
        }
    }
}
