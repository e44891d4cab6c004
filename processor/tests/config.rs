//! The configuration file: what it means, and what it says when it is wrong.

use processor::config::{Encryption, LogLevel, ProcessorConfig, RebalanceProtocol, StateKind};
use processor::core::Identity;

const MINIMAL: &str = r#"
[kafka]
bootstrap_servers = "b1:9092, b2:9092"
group_id = "ticks"

[[reference.ticker]]
ticker = "AMZN"
company_name = "Amazon"
sector = "Retail"
"#;

fn errors_of(overrides: &str) -> String {
    let overrides = overrides.parse().expect("the overrides are TOML");
    ProcessorConfig::with_overrides(MINIMAL, &overrides)
        .expect_err("it is wrong")
        .to_string()
}

#[test]
fn the_example_is_valid_and_holds_the_defaults() {
    let example = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
    let minimal = ProcessorConfig::from_toml(MINIMAL).expect("it is valid");
    assert_eq!(example.worker, minimal.worker);
    assert_eq!(example.commit, minimal.commit);
    assert_eq!(example.checkpoint, minimal.checkpoint);
    assert_eq!(example.windows, minimal.windows);
    assert_eq!(example.validation, minimal.validation);
    assert_eq!(example.recovery, minimal.recovery);
    assert_eq!(example.metrics, minimal.metrics);
    assert_eq!(example.log, minimal.log);
    assert_eq!(example.reference.version, minimal.reference.version);
    assert_eq!(example.reference.tickers.len(), 9);
    assert_eq!(
        example.kafka.transaction_timeout_ms,
        minimal.kafka.transaction_timeout_ms
    );
    assert_eq!(
        example.kafka.rebalance_protocol,
        RebalanceProtocol::Cooperative
    );
    assert_eq!(example.kafka.max_message_bytes, 1_000_000);
    assert_eq!(minimal.validation.max_price_units, 100_000_000_000_000_000);
    assert_eq!(minimal.validation.identity, Identity::EventId);
}

#[test]
fn every_wrong_value_is_told_with_what_is_allowed() {
    let errors = errors_of(
        r#"
        colour = "red"
        kafak = { }
        [kafka]
        bootstrap_servers = "b1"
        input_topic = "a b"
        transaction_timeout_ms = 500
        rebalance_protocol = "lazy"
        max_mesage_bytes = 5000
        [worker]
        ordinal = -1
        [checkpoint]
        url = "ftp://x"
        retain_count = "3"
        [validation]
        max_price = 1.5
        min_timestamp_ms = 12.5
        [recovery]
        accept_reset_partitions = [1, "two"]
        [[reference.ticker]]
        ticker = "A"
        sector = ""
        [[reference.ticker]]
        ticker = "A"
        company_name = "A"
        sector = "A"
        isin = "x"
        "#,
    );
    assert_eq!(
        errors,
        r#"the configuration has 17 errors:
  kafka.bootstrap_servers = "b1": it must be brokers as "host:port", separated by commas
  kafka.input_topic = "a b": it must be a topic name: 1 to 249 letters, digits, '.', '_' or '-', but not '.' or '..'
  kafka.transaction_timeout_ms = 500: it must be an integer from 1000 to 900000
  kafka.rebalance_protocol = "lazy": it must be "cooperative" or "eager"
  kafka.max_mesage_bytes: there is no such key; did you mean kafka.max_message_bytes?
  worker.ordinal = -1: it must be an integer from 0 to 99999
  checkpoint.url = "ftp://x": it must be "s3://bucket", "file:///folder" or "memory:///"
  checkpoint.retain_count = "3": it must be an integer from 1 to 1000
  validation.min_timestamp_ms = 12.5: it must be an integer from 0 to 253402300799999
  validation.max_price = 1.5: it must be a decimal above 0 as text, at most 9999999999.99999999, for example "1000000000"
  reference.ticker[0].company_name is missing: it must be a non-empty text
  reference.ticker[0].sector = "": it must be a non-empty text
  reference.ticker[1].ticker = "A": it must be unique; reference.ticker[0] has it already
  reference.ticker[1].isin: there is no such key; remove it
  recovery.accept_reset_partitions = [1, "two"]: it must be a list of partition numbers from 0, or []
  colour: there is no such key; remove it
  kafak: there is no such key; did you mean kafka?"#
    );
}

#[test]
fn required_keys_are_asked_for() {
    let error = ProcessorConfig::from_toml("")
        .expect_err("it is empty")
        .to_string();
    assert_eq!(
        error,
        r#"the configuration has 3 errors:
  kafka.bootstrap_servers is missing: it must be brokers as "host:port", separated by commas
  kafka.group_id is missing: it must be a non-empty text
  reference.ticker = 0 entries: it must be 1 to 65535 entries: [[reference.ticker]]"#
    );
}

#[test]
fn values_must_agree_with_each_other() {
    let errors = errors_of(
        r#"
        kafka = { output_topic = "input_topic", transaction_timeout_ms = 1000, session_timeout_ms = 400000 }
        commit = { interval_ms = 20000 }
        "#,
    );
    assert_eq!(
        errors,
        r#"the configuration has 4 errors:
  commit.interval_ms = 20000: it must be less than kafka.transaction_timeout_ms = 1000
  kafka.session_timeout_ms = 400000: it must be less than kafka.max_poll_interval_ms = 300000
  checkpoint.interval_ms = 10000: it must be at least commit.interval_ms = 20000
  kafka.output_topic = "input_topic": it must be another topic than kafka.input_topic"#
    );
}

#[test]
fn sums_stay_exact_or_the_limits_are_refused() {
    assert_eq!(
        errors_of("validation = { max_price = \"2000000000\" }"),
        "the configuration has 1 error:\n  validation.max_volume = 1000000000000: it must be at most \
         850705917302 with this max_price, so that sums stay exact"
    );
}

#[test]
fn a_result_always_fits_a_message() {
    let name = "x".repeat(3_000);
    let error = errors_of(&format!(
        "kafka = {{ max_message_bytes = 5000 }}\nreference = {{ ticker = [{{ ticker = \"A\", company_name = \"{name}\", sector = \"s\" }}] }}"
    ));
    assert!(
        error.contains("kafka.max_message_bytes = 5000: it must be at least 58"),
        "{error}"
    );
}

#[test]
fn a_syntax_error_names_its_line() {
    let error = ProcessorConfig::from_toml("[kafka]\n\ngroup_id = \n").expect_err("it is broken");
    assert!(error.to_string().contains("line 3: "), "{error}");
    let twice = ProcessorConfig::from_toml("[kafka]\na = 1\na = 2\n").expect_err("it is broken");
    assert!(
        twice.to_string().contains("line 3: duplicate key"),
        "{twice}"
    );
}

#[test]
fn overrides_are_laid_over_key_by_key() {
    let overrides = "commit = { interval_ms = 50 }\n[kafka]\ngroup_id = \"other\""
        .parse()
        .expect("TOML");
    let config = ProcessorConfig::with_overrides(MINIMAL, &overrides).expect("it is valid");
    assert_eq!(config.commit.interval_ms, 50);
    assert_eq!(config.kafka.group_id, "other");
    assert_eq!(config.kafka.bootstrap_servers, "b1:9092, b2:9092");
}

#[test]
fn the_fingerprint_follows_what_changes_outputs_and_nothing_else() {
    let fingerprint = |overrides: &str| {
        let overrides = overrides.parse().expect("TOML");
        let config = ProcessorConfig::with_overrides(MINIMAL, &overrides).expect("it is valid");
        config.fingerprint().to_string()
    };
    let base = fingerprint("");
    assert_eq!(base.len(), 16);
    for same in [
        "commit = { interval_ms = 50 }",
        "kafka = { group_id = \"other\" }",
        "worker = { ordinal = 4 }",
        "windows = { idle_timeout_ms = 5 }",
    ] {
        assert_eq!(fingerprint(same), base, "{same}");
    }
    for other in [
        "windows = { allowed_lateness_ms = 5 }",
        "windows = { max_out_of_orderness_ms = 5 }",
        "validation = { identity = \"content\" }",
        "validation = { max_price = \"5\" }",
        "validation = { max_volume = 5 }",
        "validation = { max_future_skew_ms = 5 }",
        "validation = { min_timestamp_ms = 5 }",
        "reference = { version = \"2\" }",
        "kafka = { input_topic = \"other\" }",
        "kafka = { max_message_bytes = 5000 }",
    ] {
        assert_ne!(fingerprint(other), base, "{other}");
    }
}

#[test]
fn what_a_process_tells_and_how_many_workers_it_has_can_be_set() {
    let overrides = r#"
        [worker]
        ordinal = 10
        count = 4
        [metrics]
        listen = ""
        [log]
        level = "debug"
        [kafka.properties]
        "security.protocol" = "SASL_SSL"
        "socket.keepalive.enable" = true
    "#;
    let overrides = overrides.parse().expect("the overrides are TOML");
    let config = ProcessorConfig::with_overrides(MINIMAL, &overrides).expect("it is valid");
    assert_eq!((config.worker.ordinal, config.worker.count), (10, 4));
    assert_eq!(config.metrics.listen, None);
    assert_eq!(config.log.level, LogLevel::Debug);
    let properties: Vec<(&str, &str)> = config
        .kafka
        .properties
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        properties,
        [
            ("security.protocol", "SASL_SSL"),
            ("socket.keepalive.enable", "true")
        ]
    );
}

#[test]
fn wrong_telemetry_and_too_many_workers_are_told() {
    let errors = errors_of(
        r#"
        [metrics]
        listen = "9464"
        [log]
        level = "loud"
        [kafka.properties]
        security.protocol = "SASL_SSL"
        "#,
    );
    assert!(
        errors.contains("metrics.listen = \"9464\": it must be an address and port"),
        "{errors}"
    );
    assert!(
        errors.contains("log.level = \"loud\": it must be \"info\" or"),
        "{errors}"
    );
    assert!(errors.contains("kafka.properties.security"), "{errors}");
    let errors = errors_of("[worker]\nordinal = 99999\ncount = 2");
    assert!(
        errors.contains("worker.count = 2: it must be at most 1"),
        "{errors}"
    );
}

#[test]
fn state_and_checkpoints_are_understood_and_checked() {
    let example = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
    let minimal = ProcessorConfig::from_toml(MINIMAL).expect("it is valid");
    assert_eq!(example.state, minimal.state);
    assert_eq!(example.state.store, StateKind::RocksDb);
    assert_eq!(example.state.memory_limit_bytes, 256 << 20);
    assert_eq!(example.checkpoint.s3.encryption, Encryption::BucketDefault);
    assert_eq!(example.checkpoint.s3.endpoint, None);

    let overrides = r#"
        state = { store = "memory", directory = "/tmp/x", memory_limit_bytes = 0 }
        [checkpoint]
        url = "s3://bucket"
        retain_ms = 86400000
        gc_every = 1
        [checkpoint.s3]
        endpoint = "http://127.0.0.1:1"
        region = "eu-central-1"
        allow_http = true
        sse = "aws:kms"
        kms_key_id = "key"
        bucket_key = true
    "#;
    let overrides = overrides.parse().expect("the overrides are TOML");
    let config = ProcessorConfig::with_overrides(MINIMAL, &overrides).expect("it is valid");
    assert_eq!(config.state.store, StateKind::Memory);
    assert_eq!(config.state.memory_limit_bytes, 0);
    assert_eq!(config.checkpoint.retain_ms, 86_400_000);
    assert_eq!(config.checkpoint.gc_every, 1);
    let s3 = config.checkpoint.s3;
    assert_eq!(s3.encryption, Encryption::Kms);
    assert_eq!(s3.kms_key_id.as_deref(), Some("key"));
    assert!(s3.bucket_key && s3.allow_http);

    let errors = errors_of(
        r#"
        state = { store = "disk", directory = "", memory_limit_bytes = -1 }
        [checkpoint]
        retain_ms = -1
        [checkpoint.s3]
        endpoint = "127.0.0.1"
        allow_http = "yes"
        kms_key_id = "key"
        bucket_key = true
        "#,
    );
    assert_eq!(
        errors,
        r#"the configuration has 8 errors:
  state.store = "disk": it must be "rocksdb" or "memory"
  state.directory = "": it must be a path
  state.memory_limit_bytes = -1: it must be an integer from 0 to 17592186044416
  checkpoint.retain_ms = -1: it must be an integer from 0 to 31536000000
  checkpoint.s3.endpoint = "127.0.0.1": it must be "https://host:port", or "" for AWS's own
  checkpoint.s3.allow_http = "yes": it must be true or false
  checkpoint.s3.kms_key_id = "key": it must be set only with sse = "aws:kms"
  checkpoint.s3.bucket_key = true: it must be set only with sse = "aws:kms""#
    );
    let errors = errors_of("checkpoint = { s3 = { endpoint = \"http://127.0.0.1:1\" } }");
    assert!(
        errors.contains("checkpoint.s3.allow_http = false: it must be true"),
        "{errors}"
    );
}
