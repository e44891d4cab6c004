use super::{Input, InputError, InputLine, LINE_BYTES_MAX};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file that is removed at the end of the test.
struct Temporary(PathBuf);

impl Temporary {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests in several processes must not share files"
    )]
    fn new(name: &str, content: &[u8]) -> Temporary {
        let file = format!("tickproof-test-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, content).expect("the temporary folder is writable");
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A file left behind does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn event(ticker: &str, timestamp: &str) -> String {
    format!("{{\"ticker\":\"{ticker}\",\"price\":1,\"volume\":1,\"timestamp\":{timestamp}}}")
}

fn all(input: &Input) -> Vec<InputLine> {
    input
        .lines()
        .expect("opens")
        .map(|line| line.expect("good"))
        .collect()
}

fn open(name: &str, content: &[u8]) -> Result<Input, InputError> {
    let file = Temporary::new(name, content);
    let input = Input::open(&file.0)?;
    // Read again before the file goes.
    input.lines()?.try_for_each(|line| line.map(drop))?;
    Ok(input)
}

#[test]
fn lines_come_in_order_at_their_own_times_with_their_ticker_as_key() {
    let text = format!(
        "{}\n\n{}\r\n{}",
        event("A", "1381132800.464"),
        event("B", "1381132801"),
        event("A", "1381132800.9")
    );
    let file = Temporary::new("order", text.as_bytes());
    let input = Input::open(&file.0).expect("opens");
    let lines = all(&input);
    let moments: Vec<u64> = lines.iter().map(|line| line.at_ms).collect();
    assert_eq!(moments, [10_000, 10_536, 10_536]);
    assert_eq!(lines[1].key.as_deref(), Some(b"B".as_slice()));
    assert_eq!(lines[1].value, event("B", "1381132801"));
    let summary = input.summary();
    assert_eq!((summary.lines, summary.behind, summary.ahead), (3, 1, 0));
    assert_eq!(summary.last_ms, 10_536);
    assert_eq!(summary.start_unix_ms, 1_381_132_790_464);
}

#[test]
fn a_poison_timestamp_moves_no_clock() {
    let text = [
        event("A", "123"),
        event("A", "1381132800"),
        event("A", "4070908800"),
        event("A", "1381132801"),
    ]
    .join("\n");
    let file = Temporary::new("poison", text.as_bytes());
    let input = Input::open(&file.0).expect("opens");
    let moments: Vec<u64> = all(&input).iter().map(|line| line.at_ms).collect();
    assert_eq!(moments, [0, 10_000, 10_000, 11_000]);
    assert_eq!(input.summary().ahead, 1);
}

#[test]
fn gzip_and_zstd_are_seen_by_their_content() {
    let text = format!(
        "{}\n{}\n",
        event("A", "1381132800"),
        event("B", "1381132801")
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let mut zstd = ruzstd::encoding::compress_to_vec(text.as_bytes(), level);
    // A second, a skippable and a third frame.
    zstd.extend_from_slice(&zstd.clone());
    zstd.extend_from_slice(&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    zstd.extend_from_slice(&ruzstd::encoding::compress_to_vec(text.as_bytes(), level));
    assert_eq!(open("gzip", &gzip).expect("gzip").summary().lines, 2);
    assert_eq!(open("zstd", &zstd).expect("zstd").summary().lines, 6);
    let cut = open("cut", &gzip[..gzip.len() - 12])
        .expect_err("cut off")
        .to_string();
    assert!(cut.contains("damaged or cut off"), "{cut}");
}

#[test]
fn a_wrong_line_is_named_with_its_number_and_a_fix() {
    let good = event("A", "1381132800");
    let long = format!("{{\"ticker\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX));
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("utf8", b"{\"ticker\":\"\xff\"}".to_vec(), "UTF-8"),
        ("long", long.into_bytes(), "longer than"),
        ("json", b"ticker,price".to_vec(), "no JSON object"),
        ("absent", b"{\"ticker\":\"A\"}".to_vec(), "no timestamp"),
        (
            "word",
            b"{\"timestamp\":\"today\"}".to_vec(),
            "no time in Unix seconds",
        ),
    ];
    for (name, line, expected) in cases {
        let mut content = format!("{good}\n").into_bytes();
        content.extend_from_slice(&line);
        content.extend_from_slice(format!("\n{good}\n").as_bytes());
        let error = open(name, &content).expect_err(name).to_string();
        assert!(
            error.contains("line 2") && error.contains(expected),
            "{error}"
        );
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn what_is_not_there_or_empty_is_an_error_with_a_fix() {
    let error = Input::open(Path::new("/nowhere/at/all.jsonl"))
        .expect_err("absent")
        .to_string();
    assert!(
        error.contains("/nowhere/at/all.jsonl") && error.contains("give the path"),
        "{error}"
    );
    let error = open("empty", b"\n\n").expect_err("empty").to_string();
    assert!(error.contains("has no lines"), "{error}");
}
