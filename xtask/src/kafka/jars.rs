//! The jars of one version of Apache Kafka, fetched once from Maven Central.
//!
//! Comes in: a version. Goes out: a folder of jars for Java's class path, with the configuration of
//! their logging. Never here: starting them.

use super::version::Version;
use crate::{files, say};
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const COPY_DEPENDENCIES: &str =
    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Where the jars of a version are, and the arguments that make them log.
#[derive(Debug, Clone)]
pub struct Jars {
    /// All jars, for `java -cp`.
    pub class_path: String,
    /// Tells the logging binding where its configuration is.
    pub log_option: String,
}

/// The jars of `version` below `root`/target, fetched if they are not there.
///
/// # Errors
/// When Maven is missing, cannot be reached through, or has no such version.
pub fn fetch(root: &Path, version: Version) -> anyhow::Result<Jars> {
    let folder = root.join("target/kafka-jars").join(version.to_string());
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let _lock = files::lock(&folder.join("lock"))?;
    let jars = folder.join("jars");
    // The folder gets its name only when it is complete.
    if !jars.exists() {
        say!("fetching Apache Kafka {version} from Maven Central");
        let incomplete = folder.join("jars.incomplete");
        copy_dependencies(&folder, &incomplete, version)?;
        fs::rename(&incomplete, &jars)?;
    }
    let (file, option, text) = logging(version);
    let file = folder.join(file);
    fs::write(&file, text)?;
    Ok(Jars {
        class_path: format!("{}/*", jars.display()),
        log_option: format!("-D{option}={}", file.display()),
    })
}

fn copy_dependencies(folder: &Path, jars: &Path, version: Version) -> anyhow::Result<()> {
    let pom = folder.join("pom.xml");
    fs::write(&pom, pom_xml(version))?;
    if jars.exists() {
        fs::remove_dir_all(jars)?;
    }
    let output = Command::new("mvn")
        .args(["--batch-mode", "--no-transfer-progress", "--file"])
        .arg(&pom)
        .arg(COPY_DEPENDENCIES)
        .args([
            "-DincludeScope=runtime",
            "-DoutputDirectory=jars.incomplete",
        ])
        .current_dir(folder)
        .output()
        .context("cannot run Maven (`mvn`); on Debian: sudo apt-get install --yes maven")?;
    let mut log = output.stdout;
    log.extend(output.stderr);
    let log_file = folder.join("maven.log");
    fs::write(&log_file, &log)?;
    if !output.status.success() {
        bail!(why(version, &String::from_utf8_lossy(&log), &log_file));
    }
    if !jars.join(format!("kafka_2.13-{version}.jar")).exists() {
        bail!(
            "Maven left no kafka_2.13-{version}.jar; see {}",
            log_file.display()
        );
    }
    Ok(())
}

/// What Maven's complaint means, and what to do.
fn why(version: Version, log: &str, log_file: &Path) -> String {
    let missing = format!("kafka_2.13:jar:{version}");
    let missing_pom = format!("kafka_2.13:pom:{version}");
    let log_lines = log.lines();
    let mut about_kafka =
        log_lines.filter(|line| line.contains(&missing) || line.contains(&missing_pom));
    let is_offline = [
        "offline",
        "Unknown host",
        "Could not transfer",
        "Connect to",
    ]
    .iter()
    .any(|sign| log.contains(sign));
    let advice = if is_offline {
        "Maven Central cannot be reached; it is needed once for each version: connect, or name a \
         mirror in ~/.m2/settings.xml, then run the command again"
            .to_owned()
    } else if about_kafka.any(is_absence) {
        format!(
            "Apache Kafka {version} is not on Maven Central; its versions are listed at \
             https://repo.maven.apache.org/maven2/org/apache/kafka/kafka_2.13/"
        )
    } else {
        "Maven failed".to_owned()
    };
    format!("{advice} (all that Maven said: {})", log_file.display())
}

/// Maven remembers for a while that something was absent, and says so in other words.
fn is_absence(line: &str) -> bool {
    ["ould not find", "was not found", "absent"]
        .iter()
        .any(|sign| line.contains(sign))
}

/// The binding stands first, so that its own dependencies win over Kafka's older ones.
fn pom_xml(version: Version) -> String {
    let [group, artifact, binding] = version.log_binding();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-cluster</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>{group}</groupId>
      <artifactId>{artifact}</artifactId>
      <version>{binding}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"
    )
}

/// File name, Java option and text of the logging configuration: everything to standard output.
fn logging(version: Version) -> (&'static str, &'static str, &'static str) {
    if version.major >= 4 {
        (
            "log4j2.properties",
            "log4j2.configurationFile",
            "status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
",
        )
    } else {
        (
            "log4j.properties",
            "log4j.configuration",
            "log4j.rootLogger = INFO, out
log4j.appender.out = org.apache.log4j.ConsoleAppender
log4j.appender.out.layout = org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern = %d{ISO8601} %p %m (%c)%n
",
        )
    }
}

/// The program `java`: that of `JAVA_HOME` if it is set.
///
/// # Errors
/// When there is none, or it is too old for `version`.
#[allow(
    clippy::disallowed_methods,
    reason = "JAVA_HOME is how a machine says which Java it wants to be used"
)]
pub fn java(version: Version) -> anyhow::Result<PathBuf> {
    let java = std::env::var_os("JAVA_HOME").map_or_else(
        || PathBuf::from("java"),
        |home| PathBuf::from(home).join("bin/java"),
    );
    let needed = version.java_min();
    let fix = format!(
        "Apache Kafka {version} needs Java {needed} or newer; on Debian: sudo apt-get install --yes \
         default-jre-headless (JAVA_HOME chooses between several)"
    );
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .with_context(|| format!("cannot run `{}`: {fix}", java.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match java_major(&said) {
        Some(major) if major >= needed => Ok(java),
        Some(major) => bail!("`{}` is Java {major}: {fix}", java.display()),
        None => bail!("`{} -version` says no version: {fix}", java.display()),
    }
}

/// The major version in what `java -version` says: 8 of "1.8.0_1", 17 of "17.0.15", 25 of "25".
fn java_major(said: &str) -> Option<u32> {
    let version = said.split('"').nth(1)?;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().ok());
    match numbers.next()? {
        Some(1) => numbers.next()?,
        first => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn each_line_of_kafka_gets_its_own_logging() {
        assert!(pom_xml(version("4.4.0")).contains("log4j-slf4j-impl"));
        assert!(pom_xml(version("3.9.2")).contains("slf4j-reload4j"));
    }

    #[test]
    fn what_maven_says_becomes_advice() {
        let path = Path::new("maven.log");
        let absent = "Could not find artifact org.apache.kafka:kafka_2.13:jar:4.99.0 in central";
        let advice = why(version("4.99.0"), absent, path);
        assert!(
            advice.contains("4.99.0 is not on Maven Central"),
            "{advice}"
        );
        let offline = "Cannot access central in offline mode and kafka_2.13:jar:4.4.0 has not";
        let advice = why(version("4.4.0"), offline, path);
        assert!(advice.contains("cannot be reached"), "{advice}");
        let other = why(version("4.4.0"), "no space left on device", path);
        assert!(other.contains("maven.log"), "{other}");
    }

    #[test]
    fn the_major_version_of_java_is_read_from_old_and_new_forms() {
        assert_eq!(
            java_major("openjdk version \"17.0.15\" 2025-04-15"),
            Some(17)
        );
        assert_eq!(java_major("java version \"1.8.0_402\""), Some(8));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("openjdk version \"26-ea\" 2026-03-17"), Some(26));
        assert_eq!(java_major("command not found"), None);
    }
}
