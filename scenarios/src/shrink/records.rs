//! Single records: fewer, and simpler ones.

use super::search::Search;
use serde_json::{Map, Value};
use sim::plan::{Plan, Scripted};

/// Without some of the records.
pub(super) fn drop(search: &mut Search<'_>) {
    search.drop_items(
        "fewer records",
        |plan| plan.workload.records.len(),
        |plan, range| std::mem::drop(plan.workload.records.drain(range)),
    );
    search.repeat("fewer records", |plan| {
        let plan = plan.clone();
        (0..plan.workload.records.len()).flat_map(move |place| {
            let times = plan.workload.records[place].times;
            let fewer = [1, times / 2, times.saturating_sub(1)];
            let plan = plan.clone();
            fewer.into_iter().filter(|n| *n >= 1).map(move |times| {
                let mut plan = plan.clone();
                plan.workload.records[place].times = times;
                plan
            })
        })
    });
}

/// Plain values: a field less, a price of 1, whole seconds; all records as one, if they may be equal.
pub(super) fn simplify(search: &mut Search<'_>) {
    const SIMPLER: [fn(&mut Map<String, Value>); 7] = [
        |event| drop_field(event, "source"),
        |event| drop_field(event, "event_id"),
        |event| set_if_there(event, "volume", Value::from(1)),
        |event| set_if_there(event, "price", Value::from(1)),
        |event| set_if_there(event, "price", Value::from(100)),
        |event| round_timestamp(event, 60),
        |event| round_timestamp(event, 1),
    ];
    for change in SIMPLER {
        let all = everywhere(search.plan(), change);
        if search.first("simpler records", [all]).is_some() {
            continue;
        }
        for place in 0..search.plan().workload.records.len() {
            let mut plan = search.plan().clone();
            change_event(&mut plan.workload.records[place], change);
            search.first("simpler records", [plan]);
        }
    }
    search.repeat("equal records together", |plan| {
        let plan = plan.clone();
        (1..plan.workload.records.len()).map(move |place| {
            let mut plan = plan.clone();
            let one = plan.workload.records.remove(place);
            plan.workload.records[place - 1].times += one.times;
            plan
        })
    });
}

fn everywhere(plan: &Plan, change: fn(&mut Map<String, Value>)) -> Plan {
    let mut plan = plan.clone();
    for record in &mut plan.workload.records {
        change_event(record, change);
    }
    plan
}

/// What is no JSON object stays as it is.
fn change_event(record: &mut Scripted, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Ok(Value::Object(mut event)) = serde_json::from_str(&record.value) {
        change(&mut event);
        record.value = Value::Object(event).to_string();
    }
}

fn drop_field(event: &mut Map<String, Value>, name: &str) {
    event.remove(name);
}

fn set_if_there(event: &mut Map<String, Value>, name: &str, value: Value) {
    if let Some(old) = event.get_mut(name) {
        *old = value;
    }
}

fn round_timestamp(event: &mut Map<String, Value>, to_s: i64) {
    if let Some(ms) = event_ms(event) {
        let seconds = ms.div_euclid(1_000 * to_s) * to_s;
        event.insert("timestamp".to_owned(), Value::from(seconds));
    }
}

/// It is sent at another time, and its event keeps its distance to that.
pub(super) fn move_to(record: &mut Scripted, at_ms: u64) {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(0);
    let later_ms = signed(at_ms) - signed(record.at_ms);
    record.at_ms = at_ms;
    change_event(record, |event| {
        if let Some(ms) = event_ms(event).map(|ms| ms + later_ms) {
            let timestamp = match ms.rem_euclid(1_000) {
                0 => Value::from(ms / 1_000),
                _ => Value::from(ms as f64 / 1_000.0),
            };
            event.insert("timestamp".to_owned(), timestamp);
        }
    });
}

/// Unix milliseconds of the event, as its timestamp's text has them.
fn event_ms(event: &Map<String, Value>) -> Option<i64> {
    let seconds = event.get("timestamp")?.as_f64()?;
    // Three places of a time of this century are exact in a float's 53 bits.
    Some((seconds * 1_000.0).round() as i64)
}
