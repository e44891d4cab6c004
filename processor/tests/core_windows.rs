//! Windows, watermarks, corrections, duplicates: what one partition puts out for a log.

mod partition;

use partition::{
    Partition, RULES, T0, header, json, results, text, tick, tick_of, tick_with_id, watermark,
};
use processor::units::{LogTimeMs, Offset, Watermark};

fn amzn(start: i64, count: u64, revision: u64) -> (String, i64, u64, u64) {
    ("AMZN".to_owned(), start, count, revision)
}

#[test]
fn a_window_comes_out_when_the_watermark_reaches_its_end_and_not_before() {
    let mut partition = Partition::new(RULES);
    assert_eq!(partition.task.watermark(), Watermark::NONE);
    assert_eq!(partition.task.next_deadline(), None);
    assert_eq!(partition.feed(tick("0", "10", 1)), []);
    assert_eq!(partition.feed(tick("59.999", "11", 1)), []);
    assert_eq!(partition.task.next_deadline(), Some(watermark(60_000)));
    assert_eq!(partition.feed(tick("60", "12", 1)), []);
    assert_eq!(partition.feed(tick("64.999", "12", 1)), []);
    assert_eq!(partition.task.watermark(), watermark(59_999));
    let outputs = partition.feed(tick("65", "12", 1));
    assert_eq!(results(&outputs), [amzn(0, 2, 0)]);
    assert_eq!(outputs[0].timestamp, LogTimeMs(T0 * 1000 + 59_999));
    assert_eq!(partition.task.next_deadline(), Some(watermark(120_000)));
}

#[test]
fn a_result_has_the_promised_form() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick("1", "150.25", 100));
    partition.feed(tick("2", "150.5", 300));
    let outputs = partition.feed(tick("70", "1", 1));
    assert_eq!(
        text(&outputs[0].value),
        r#"{"ticker":"AMZN","company_name":"Amazon.com, Inc.","sector":"Consumer Discretionary","window_start":1381132800000,"window_end":1381132860000,"count":2,"avg_price":150.375,"min_price":150.25,"max_price":150.5,"total_volume":400,"open_price":150.25,"close_price":150.5,"vwap":150.4375,"revision":0,"previous":null}"#
    );
    assert_eq!(outputs[0].key.as_deref(), Some(&b"AMZN"[..]));
    let names: Vec<&str> = outputs[0]
        .headers
        .iter()
        .map(|header| header.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "source-partition",
            "sequence",
            "correlation-id",
            "cause-offset",
            "cause",
            "watermark",
            "revision",
            "event-set-hash"
        ]
    );
    for (name, value) in [
        ("source-partition", "3"),
        ("sequence", "0"),
        // md5 of "AMZN_1381132800"
        ("correlation-id", "7671ebfb7476b74473aff878f15b0cbb"),
        ("cause-offset", "102"),
        ("cause", "record"),
        ("watermark", "1381132865000"),
        ("revision", "0"),
    ] {
        assert_eq!(header(&outputs[0], name), Some(value), "{name}");
    }
    let hash = |text: &str| xxhash_rust::xxh3::xxh3_128(text.as_bytes());
    let expected = hash("at:3:100").wrapping_add(hash("at:3:101"));
    assert_eq!(
        header(&outputs[0], "event-set-hash"),
        Some(format!("{expected:032x}").as_str())
    );
}

#[test]
fn a_late_event_corrects_its_window_and_tells_what_it_replaces() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick("1", "10", 100));
    partition.feed(tick("70", "1", 1));
    let first = partition.feed(tick("2", "20", 300));
    assert_eq!(results(&first), [amzn(0, 2, 1)]);
    let value = json(&first[0].value);
    assert_eq!(
        value["previous"].to_string(),
        r#"{"avg_price":10,"close_price":10,"count":1,"max_price":10,"min_price":10,"open_price":10,"revision":0,"total_volume":100,"vwap":10}"#
    );
    assert!(text(&first[0].value).contains(
        r#""previous":{"count":1,"avg_price":10,"min_price":10,"max_price":10,"total_volume":100,"open_price":10,"close_price":10,"vwap":10,"revision":0}"#
    ));
    assert_eq!(value["vwap"].to_string(), "17.5");
    let second = json(&partition.feed(tick("0.5", "30", 0))[0].value);
    assert_eq!(second["revision"], 2);
    assert_eq!(second["open_price"], 30);
    assert_eq!(second["previous"]["revision"], 1);
    assert_eq!(second["previous"]["count"], 2);
}

#[test]
fn an_event_for_a_passed_window_that_was_never_put_out_comes_out_at_once() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick("70", "1", 1));
    let outputs = partition.feed(tick("5", "2", 1));
    assert_eq!(results(&outputs), [amzn(0, 1, 0)]);
    assert_eq!(json(&outputs[0].value)["previous"], serde_json::Value::Null);
    let other = partition.feed(tick_of("MSFT", "5", "2", 1));
    assert_eq!(results(&other), [("MSFT".to_owned(), 0, 1, 0)]);
    assert_eq!(results(&partition.feed(tick("6", "2", 1))), [amzn(0, 2, 1)]);
}

#[test]
fn a_window_is_corrected_until_its_horizon_and_refused_from_it_on() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick("1", "1", 1));
    partition.feed(tick("124.999", "1", 1));
    assert_eq!(partition.task.watermark(), watermark(119_999));
    assert_eq!(results(&partition.feed(tick("2", "1", 1))), [amzn(0, 2, 1)]);
    partition.feed(tick("125", "1", 1));
    let (error_type, letter) = partition.reject(tick("3", "1", 1));
    assert_eq!(error_type, "too_late");
    assert_eq!(letter["stage"], "window");
    assert_eq!(
        partition.task.watermark(),
        watermark(120_000),
        "a dead letter moves nothing"
    );
    // The next window is still open to corrections or not yet out.
    assert_eq!(partition.feed(tick("61", "1", 1)).len(), 1);
}

#[test]
fn a_jump_puts_windows_out_by_end_and_then_by_ticker() {
    let mut partition =
        Partition::new("windows = { max_out_of_orderness_ms = 200000, allowed_lateness_ms = 0 }");
    for (ticker, seconds) in [
        ("SPY", "130"),
        ("MSFT", "70"),
        ("AMZN", "71"),
        ("MSFT", "1"),
        ("AAPL", "131"),
        ("SPY", "2"),
    ] {
        assert_eq!(partition.feed(tick_of(ticker, seconds, "1", 1)), []);
    }
    let outputs = partition.feed(tick_of("IBM", "3000", "1", 1));
    let order: Vec<_> = results(&outputs)
        .into_iter()
        .map(|(ticker, start, ..)| (start, ticker))
        .collect();
    let expected = [
        (0, "MSFT"),
        (0, "SPY"),
        (60, "AMZN"),
        (60, "MSFT"),
        (120, "AAPL"),
        (120, "SPY"),
    ];
    assert_eq!(
        order,
        expected.map(|(start, ticker)| (start, ticker.to_owned()))
    );
    assert_eq!(
        partition.reject(tick("130", "1", 1)).0,
        "too_late",
        "state is gone with the jump"
    );
}

#[test]
fn open_and_close_are_by_event_time_and_then_by_log_order() {
    let mut partition = Partition::new(RULES);
    for (seconds, price) in [
        ("5", "1"),
        ("5", "2"),
        ("3", "3"),
        ("3", "4"),
        ("9", "5"),
        ("9", "6"),
        ("4", "7"),
    ] {
        partition.feed(tick(seconds, price, 1));
    }
    let value = json(&partition.feed(tick("65", "1", 1))[0].value);
    assert_eq!(
        (&value["open_price"], &value["close_price"]),
        (&3.into(), &6.into())
    );
    assert_eq!(
        (&value["min_price"], &value["max_price"]),
        (&1.into(), &7.into())
    );
}

#[test]
fn averages_are_exact_and_rounded_half_to_even_once() {
    let one_window = |prices: &[(&str, i64)]| {
        let mut partition = Partition::new(RULES);
        for (price, volume) in prices {
            partition.feed(tick("1", price, *volume));
        }
        let output = partition.feed(tick("65", "1", 1)).remove(0);
        text(&output.value).to_owned()
    };
    let even = one_window(&[("0.00000001", 1), ("0.00000002", 1)]);
    assert!(even.contains(r#""avg_price":0.00000002,"#), "{even}");
    assert!(even.contains(r#""vwap":0.00000002,"#), "{even}");
    let down = one_window(&[("0.00000002", 1), ("0.00000003", 1)]);
    assert!(down.contains(r#""avg_price":0.00000002,"#), "{down}");
    let third = one_window(&[("1", 0), ("1", 0), ("2", 0)]);
    assert!(third.contains(r#""avg_price":1.33333333,"#), "{third}");
    assert!(third.contains(r#""vwap":null,"#), "{third}");
    let large = one_window(&[("1000000000", 1_000_000_000_000), ("0.00000001", 1)]);
    assert!(
        large.contains(r#""total_volume":1000000000001,"#),
        "{large}"
    );
    // The exact mean is 500000000.000000005: halfway, so it goes to the even neighbour.
    assert!(large.contains(r#""avg_price":500000000,"#), "{large}");
}

#[test]
fn an_identity_counts_once_in_its_window_and_again_elsewhere() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick_with_id("AMZN", "1", r#""a""#));
    assert_eq!(partition.feed(tick_with_id("AMZN", "59", r#""a""#)), []);
    assert_eq!(partition.feed(tick_with_id("AMZN", "2", r#""\u0061""#)), []);
    assert_eq!(partition.task.counters().duplicates, 2);
    partition.feed(tick_with_id("AMZN", "3", "7"));
    partition.feed(tick_with_id("AMZN", "3", r#""7""#));
    assert_eq!(
        partition.task.counters().duplicates,
        3,
        "an integer id is its text"
    );
    partition.feed(tick_with_id("MSFT", "1", r#""a""#));
    partition.feed(tick_with_id("AMZN", "60", r#""a""#));
    let counters = partition.task.counters();
    assert_eq!(
        (counters.records, counters.accepted, counters.duplicates),
        (7, 4, 3)
    );
    assert_eq!(partition.task.live_ids(), 4);
    let outputs = partition.feed(tick("65", "1", 1));
    assert_eq!(
        results(&outputs),
        [amzn(0, 2, 0), ("MSFT".to_owned(), 0, 1, 0)]
    );
    // A duplicate within the lateness changes nothing and yields nothing.
    assert_eq!(partition.feed(tick_with_id("AMZN", "1", r#""a""#)), []);
}

#[test]
fn events_without_id_are_all_counted_even_when_identical() {
    let mut partition = Partition::new(RULES);
    for _ in 0..1000 {
        partition.feed(tick_of("TEST", "1", "100", 1));
    }
    partition.feed(tick_of("TEST", "1", "100", 1).replacen('{', r#"{"event_id":null,"#, 1));
    assert_eq!(partition.task.live_ids(), 0);
    let outputs = partition.force(watermark(60_000)).expect("it moves");
    assert_eq!(results(&outputs), [("TEST".to_owned(), 0, 1001, 0)]);
}

#[test]
fn identity_by_content_ignores_ids_and_number_forms() {
    let mut partition = Partition::new("validation = { identity = \"content\" }");
    let event = |price: &str, extra: &str| {
        format!(r#"{{"ticker":"TEST","price":{price},"volume":5,"timestamp":{T0}{extra}}}"#)
    };
    partition.feed(event("1.5", ""));
    partition.feed(event("15e-1", r#","event_id":"x","source":null"#));
    partition.feed(event("1.50", r#","source":"""#));
    assert_eq!(partition.task.counters().duplicates, 2);
    partition.feed(event("1.5", r#","source":"P""#));
    partition.feed(event("1.6", ""));
    assert_eq!(partition.task.counters().accepted, 3);
    let outputs = partition.force(watermark(60_000)).expect("it moves");
    let millis = T0 * 1000;
    let set = [
        format!("content:TEST|1.5|5|{millis}|"),
        format!("content:TEST|1.5|5|{millis}|P"),
        format!("content:TEST|1.6|5|{millis}|"),
    ];
    let sum = set.iter().fold(0_u128, |sum, text| {
        sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
    });
    assert_eq!(
        header(&outputs[0], "event-set-hash"),
        Some(format!("{sum:032x}").as_str())
    );
}

#[test]
fn a_forced_advance_emits_like_an_event_would() {
    let mut partition = Partition::new(RULES);
    partition.feed(tick("1", "1", 1));
    assert_eq!(
        partition.force(watermark(-4_000)),
        None,
        "it is there already"
    );
    assert_eq!(partition.task.forced(), None);
    partition.task.advance_position(Offset(105));
    let outputs = partition.force(watermark(60_000)).expect("it moves");
    assert_eq!(results(&outputs), [amzn(0, 1, 0)]);
    for (name, value) in [
        ("cause", "idle"),
        ("cause-offset", "105"),
        ("watermark", "1381132860000"),
        ("forced", "105:1381132860000"),
    ] {
        assert_eq!(header(&outputs[0], name), Some(value), "{name}");
    }
    // Later outputs name the newest advance, whatever causes them.
    let correction = partition.feed(tick("2", "1", 1));
    assert_eq!(results(&correction), [amzn(0, 2, 1)]);
    assert_eq!(header(&correction[0], "forced"), Some("105:1381132860000"));
    assert_eq!(header(&correction[0], "cause"), Some("record"));
    assert_eq!(partition.force(watermark(120_000)), Some(vec![]));
    assert_eq!(partition.task.next_deadline(), None);
    assert_eq!(partition.reject(tick("2", "1", 1)).0, "too_late");
    // The log's own watermark does not move it back.
    partition.feed(tick("61", "1", 1));
    assert_eq!(partition.task.watermark(), watermark(120_000));
}

#[test]
fn a_forced_advance_closes_a_window_for_good_only_when_a_record_confirms_it() {
    let mut partition = Partition::new(RULES);
    let at = |ms: i64| LogTimeMs(T0 * 1000 + ms);
    partition.kafka_timestamp = at(1_000);
    partition.feed(tick("1", "1", 1));
    // By the clock it is 205 s; the window's end plus its lateness is 120 s.
    let outputs = partition.force(watermark(200_000)).expect("it moves");
    assert_eq!(results(&outputs), [amzn(0, 1, 0)]);
    // Stored before that, and hidden until now by replication: a correction.
    partition.kafka_timestamp = at(124_999);
    let outputs = partition.feed(tick("2", "1", 1));
    assert_eq!(results(&outputs), [amzn(0, 2, 1)]);
    // Stored when the window was closed: too late, and so is whatever follows.
    partition.kafka_timestamp = at(125_000);
    assert_eq!(partition.reject(tick("3", "1", 1)).0, "too_late");
    partition.kafka_timestamp = at(1_000);
    assert_eq!(partition.reject(tick("4", "1", 1)).0, "too_late");
}

#[test]
fn sequences_have_no_gaps_across_both_topics() {
    let mut partition = Partition::new(RULES);
    let mut outputs = partition.feed("{");
    partition.feed(tick("1", "1", 1));
    outputs.extend(partition.feed(tick("65", "1", 1)));
    outputs.extend(partition.feed("{"));
    outputs.extend(partition.feed(tick("2", "1", 1)));
    let sequences: Vec<u64> = outputs.iter().map(|output| output.sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3]);
    for output in &outputs {
        assert_eq!(
            header(output, "sequence"),
            Some(output.sequence.to_string().as_str())
        );
    }
    assert_eq!(partition.task.next_sequence(), 4);
    let counters = partition.task.counters();
    assert_eq!((counters.dead_letters, counters.results), (2, 2));
}

#[test]
fn the_digest_sees_order_and_content_but_no_gaps() {
    let digest = |steps: &dyn Fn(&mut Partition)| {
        let mut partition = Partition::new(RULES);
        steps(&mut partition);
        partition.task.digest()
    };
    let (a, b) = (tick("1", "1", 1), tick("2", "1", 1));
    let ab = digest(&|partition| {
        partition.feed(&a);
        partition.feed(&b);
    });
    let ba = digest(&|partition| {
        partition.feed(&b);
        partition.feed(&a);
    });
    let gap_behind = digest(&|partition| {
        partition.feed(&a);
        partition.feed(&b);
        partition.task.advance_position(Offset(900));
    });
    let forced = digest(&|partition| {
        partition.feed(&a);
        partition.feed(&b);
        partition.force(watermark(0));
    });
    let no_key = digest(&|partition| {
        partition.feed(&a);
        partition.feed_record(None, Some(b.as_bytes()));
    });
    let empty_key = digest(&|partition| {
        partition.feed(&a);
        partition.feed_record(Some(b""), Some(b.as_bytes()));
    });
    assert_eq!(ab, gap_behind);
    let all = std::collections::BTreeSet::from([ab, ba, forced, no_key, empty_key]);
    assert_eq!(all.len(), 5);
    let written = serde_json::to_string(&ab).expect("a digest is JSON");
    assert_eq!(written.len(), 34);
    assert_eq!(
        serde_json::from_str::<processor::core::Digest>(&written).expect("it reads"),
        ab
    );
}

#[test]
#[should_panic(expected = "was fed after position")]
fn feeding_a_record_twice_is_a_broken_invariant() {
    let mut partition = Partition::new(RULES);
    partition.task.advance_position(Offset(101));
    let record = processor::core::InputRecord {
        offset: Offset(100),
        timestamp: LogTimeMs(0),
        key: None,
        value: None,
    };
    let _ = partition.task.process([record], &mut Vec::new());
}
