//! Bad input: every rule, its name, its message, and what the dead letter carries.

mod partition;

use partition::{Partition, T0, at, header, json, text};
use processor::core::Destination;
use processor::units::LogTimeMs;

/// An event in which single fields can be replaced (JSON text) or left out.
fn event(changes: &[(&str, Option<&str>)]) -> String {
    let timestamp = at("1");
    let fields = [
        ("ticker", "\"AMZN\""),
        ("price", "10"),
        ("volume", "1"),
        ("timestamp", timestamp.as_str()),
        ("event_id", "\"a\""),
        ("source", "\"feed\""),
    ];
    let chosen = fields.iter().filter_map(|&(name, default)| {
        let change = changes.iter().find(|(changed, _)| *changed == name);
        let value = change.map_or(Some(default), |&(_, value)| value)?;
        Some(format!("\"{name}\":{value}"))
    });
    format!("{{{}}}", chosen.collect::<Vec<_>>().join(","))
}

#[test]
fn every_rule_has_its_name_and_says_what_it_wanted() {
    let long = format!("\"{}\"", "x".repeat(100));
    let future = at("4000");
    let cases: &[(&str, Option<&str>, &str, &str)] = &[
        (
            "ticker",
            None,
            "missing_field",
            r#"field "ticker" is missing or null; it is required"#,
        ),
        (
            "price",
            Some("null"),
            "missing_field",
            r#"field "price" is missing or null; it is required"#,
        ),
        (
            "ticker",
            Some("5"),
            "wrong_type",
            r#"field "ticker": expected a string, got 5"#,
        ),
        (
            "ticker",
            Some(r#""\ud800""#),
            "wrong_type",
            r#"expected a string, got "\ud800""#,
        ),
        (
            "price",
            Some(r#""N/A""#),
            "wrong_type",
            r#"field "price": expected a number, got "N/A""#,
        ),
        ("price", Some(&long), "wrong_type", "xxxxx… (102 bytes)"),
        (
            "volume",
            Some("1.0"),
            "wrong_type",
            "expected an integer without fraction or exponent, got 1.0",
        ),
        ("volume", Some("true"), "wrong_type", "got true"),
        (
            "timestamp",
            Some(r#""now""#),
            "wrong_type",
            "expected Unix seconds as a number of at most 3 decimal places",
        ),
        (
            "timestamp",
            Some("1381132800.0001"),
            "wrong_type",
            "got 1381132800.0001",
        ),
        (
            "event_id",
            Some(r#""""#),
            "wrong_type",
            "expected a non-empty string, an integer or null",
        ),
        ("event_id", Some("1.5"), "wrong_type", "got 1.5"),
        ("event_id", Some("{}"), "wrong_type", "got {}"),
        (
            "source",
            Some("[1]"),
            "wrong_type",
            r#"field "source": expected a string or null, got [1]"#,
        ),
        (
            "ticker",
            Some(r#""XYZ""#),
            "unknown_ticker",
            r#""XYZ" is not in the reference data (version 1, 9 tickers)"#,
        ),
        (
            "price",
            Some("0"),
            "price_out_of_range",
            "expected a number above 0, at most 1000000000, with at most 8 decimal places, got 0",
        ),
        ("price", Some("-1"), "price_out_of_range", "got -1"),
        (
            "price",
            Some("1000000000.00000001"),
            "price_out_of_range",
            "got 1000000000.00000001",
        ),
        (
            "price",
            Some("0.000000001"),
            "price_out_of_range",
            "got 0.000000001",
        ),
        (
            "price",
            Some("1e999999999"),
            "price_out_of_range",
            "got 1e999999999",
        ),
        (
            "volume",
            Some("-1"),
            "volume_out_of_range",
            "expected 0 to 1000000000000, got -1",
        ),
        (
            "volume",
            Some("1000000000001"),
            "volume_out_of_range",
            "got 1000000000001",
        ),
        (
            "volume",
            Some("99999999999999999999999"),
            "volume_out_of_range",
            "got 9",
        ),
        (
            "timestamp",
            Some("123"),
            "timestamp_too_old",
            "123 s is before the configured minimum of 946684800000 ms",
        ),
        ("timestamp", Some("-1e30"), "timestamp_too_old", "-1e30 s"),
        (
            "timestamp",
            Some(&future),
            "timestamp_in_future",
            "is more than 60000 ms ahead of the record's Kafka timestamp of 1381136400000 ms",
        ),
        ("timestamp", Some("1e300"), "timestamp_in_future", "1e300 s"),
    ];
    for (field, value, error_type, message) in cases {
        let mut partition = Partition::new("");
        let (found, letter) = partition.reject(event(&[(field, *value)]));
        assert_eq!(&found, error_type, "{field} {value:?}");
        let said = letter["message"].as_str().expect("a message");
        assert!(said.contains(message), "{field} {value:?}: {said}");
        assert_eq!(partition.task.counters().dead_letters, 1);
    }
}

#[test]
fn what_is_no_single_object_is_malformed() {
    for value in [
        &b""[..],
        b"{",
        b"[]",
        br#"["AMZN",1,1,1,null,null]"#,
        b"17",
        b"null",
        b"{} {}",
        b"\xff\xfe",
        b"{\"ticker\":\"AMZN\",\"other\":\"\xff\"}",
        br#"{"ticker":"AMZN","ticker":"AMZN"}"#,
        br#"{"ticker":null,"ticker":"AMZN"}"#,
        br#"{"price":01}"#,
        br#"{"price":1.}"#,
    ] {
        let (error_type, letter) = Partition::new("").reject(value);
        assert_eq!(error_type, "malformed", "{letter}");
        assert_eq!(letter["stage"], "decode");
    }
    let outputs = Partition::new("").feed_record(None, None);
    let letter = json(&outputs[0].value);
    assert_eq!(letter["error_type"], "malformed");
    assert_eq!(letter["original"], serde_json::Value::Null);
    assert_eq!(letter["key"], serde_json::Value::Null);
    assert!(letter.get("pointer").is_none());
    assert_eq!(outputs[0].key, None);
}

#[test]
fn the_first_broken_rule_wins() {
    let wrong = [
        ("ticker", Some("1")),
        ("price", Some("\"x\"")),
        ("volume", Some("\"x\"")),
        ("timestamp", Some("\"x\"")),
        ("event_id", Some("[]")),
        ("source", Some("[]")),
    ];
    for first in 0..wrong.len() {
        let (_, letter) = Partition::new("").reject(event(&wrong[first..]));
        let message = letter["message"].as_str().expect("a message");
        assert!(message.contains(wrong[first].0), "{message}");
    }
    let out_of_range = [
        (("ticker", Some("\"XYZ\"")), "unknown_ticker"),
        (("price", Some("0")), "price_out_of_range"),
        (("volume", Some("-1")), "volume_out_of_range"),
        (("timestamp", Some("123")), "timestamp_too_old"),
    ];
    for first in 0..out_of_range.len() {
        let changes: Vec<_> = out_of_range[first..]
            .iter()
            .map(|(change, _)| *change)
            .collect();
        assert_eq!(
            Partition::new("").reject(event(&changes)).0,
            out_of_range[first].1
        );
    }
    let type_before_range = [("ticker", Some("\"XYZ\"")), ("source", Some("1"))];
    assert_eq!(
        Partition::new("").reject(event(&type_before_range)).0,
        "wrong_type"
    );
}

#[test]
fn limits_themselves_are_allowed() {
    let skew = at("3660");
    for (field, value) in [
        ("price", "1000000000"),
        ("price", "1000000000.000000000000"),
        ("price", "1e-8"),
        ("volume", "0"),
        ("volume", "-0"),
        ("volume", "1000000000000"),
        ("timestamp", skew.as_str()),
        ("timestamp", "1.38113646e9"),
        ("timestamp", "946684800"),
        ("source", "null"),
        ("event_id", "null"),
        ("event_id", "-12"),
    ] {
        let mut partition = Partition::new("");
        assert_eq!(
            partition.feed(event(&[(field, Some(value))])),
            [],
            "{field} {value}"
        );
        assert_eq!(partition.task.counters().accepted, 1, "{field} {value}");
    }
}

#[test]
fn unknown_fields_and_spaces_do_not_matter() {
    let mut partition = Partition::new("");
    let event = format!(
        " {{ \"x\" : [1,{{}}], \"ticker\" : \"AM\\u005aN\" ,\n\"price\":\t1 , \"volume\" : 1, \"timestamp\": {T0} }} "
    );
    partition.feed(event);
    assert_eq!(partition.task.counters().accepted, 1);
}

#[test]
fn a_dead_letter_carries_everything_for_a_replay() {
    let mut partition = Partition::new("");
    let original = r#"{"ticker":"XYZ","price":"N/A","timestamp":123}"#;
    let output = partition.feed(original).remove(0);
    assert_eq!(
        text(&output.value),
        r#"{"error_type":"wrong_type","message":"field \"price\": expected a number, got \"N/A\"","stage":"decode","topic":"input_topic","partition":3,"offset":100,"timestamp":1381136400000,"correlation_id":"ID","original":"{\"ticker\":\"XYZ\",\"price\":\"N/A\",\"timestamp\":123}","key":"key"}"#
            .replace("ID", header(&output, "correlation-id").expect("there is one"))
    );
    assert_eq!(output.destination, Destination::DeadLetters);
    assert_eq!(output.timestamp, partition.kafka_timestamp);
    assert_eq!(output.key.as_deref(), Some(&b"key"[..]));
    assert_eq!(header(&output, "cause-offset"), Some("100"));
    assert_eq!(
        header(&output, "watermark"),
        Some(i64::MIN.to_string().as_str())
    );
    assert_eq!(header(&output, "revision"), None);
    assert_eq!(header(&output, "forced"), None);
}

#[test]
fn correlation_is_by_event_where_it_can_be_read_and_by_place_otherwise() {
    let of_event = md5("XYZ_123");
    let of_place = md5("input_topic_3_100");
    assert_eq!(md5(""), "d41d8cd98f00b204e9800998ecf8427e");
    for (value, expected) in [
        (
            r#"{"ticker":"XYZ","price":"N/A","timestamp":123}"#,
            &of_event,
        ),
        (r#"{"ticker":"XYZ","timestamp":"123"}"#, &of_place),
        (r#"{"timestamp":123}"#, &of_place),
        ("garbage", &of_place),
    ] {
        let (_, letter) = Partition::new("").reject(value);
        assert_eq!(
            letter["correlation_id"].as_str(),
            Some(expected.as_str()),
            "{value}"
        );
    }
}

fn md5(text: &str) -> String {
    use md5::Digest;
    md5::Md5::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn bytes_that_are_no_text_travel_as_base64() {
    let outputs = Partition::new("").feed_record(Some(b"\xff\x00"), Some(b"\xfe\xff"));
    let letter = json(&outputs[0].value);
    assert_eq!(letter["original_base64"], "/v8=");
    assert_eq!(letter["key_base64"], "/wA=");
    assert!(letter.get("original").is_none() && letter.get("key").is_none());
    assert_eq!(outputs[0].key.as_deref(), Some(&b"\xff\x00"[..]));
}

#[test]
fn what_would_not_fit_becomes_a_pointer() {
    let limit = "kafka = { max_message_bytes = 8192 }";
    let control_characters = "\u{1}".repeat(2_000); // six bytes each as JSON
    for value in ["x".repeat(8_192), "x".repeat(7_500), control_characters] {
        let outputs = Partition::new(limit).feed_record(Some(b"k"), Some(value.as_bytes()));
        let letter = json(&outputs[0].value);
        assert_eq!(letter["pointer"], true);
        assert_eq!(letter["original"], serde_json::Value::Null);
        assert_eq!(letter["key"], "k");
        assert_eq!(
            (&letter["offset"], &letter["error_type"]),
            (&100.into(), &"malformed".into())
        );
        assert!(outputs[0].value.len() < 1_000);
    }
    let key = vec![b'k'; 8_000];
    let outputs = Partition::new(limit).feed_record(Some(&key), Some(b"x"));
    assert_eq!(json(&outputs[0].value)["key"], serde_json::Value::Null);
    assert_eq!(outputs[0].key, None);
    let small = Partition::new(limit).feed_record(None, Some("x".repeat(5_000).as_bytes()));
    assert!(json(&small[0].value).get("pointer").is_none());
}

#[test]
fn no_timestamp_of_kafka_breaks_the_arithmetic() {
    for kafka_timestamp in [i64::MIN, -1, 0, i64::MAX] {
        let mut partition = Partition::new("");
        partition.kafka_timestamp = LogTimeMs(kafka_timestamp);
        for timestamp in [
            "1e15",
            "-1e15",
            "9223372036854775.807",
            "253402300799.999",
            "1e12",
        ] {
            partition.feed(event(&[("timestamp", Some(timestamp))]));
        }
        partition.force(processor::units::Watermark(i64::MAX));
        assert_eq!(partition.task.counters().records, 5);
    }
}
