//! Programs and libraries of the system: what the native parts (librdkafka, RocksDB) are built with, and
//! what the servers run on. Debian's packages are installed where that is allowed.

use super::{install, works};
use anyhow::bail;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::kafka;

/// Something of the system that the steps need.
struct Need {
    /// What it is, for people whose system has other packages.
    what: &'static str,
    /// Whether it is there.
    is_there: fn() -> bool,
    /// Debian's packages; the first choice whose packages all exist is taken.
    choices: &'static [&'static [&'static str]],
}

const NEEDS: [Need; 11] = [
    Need {
        what: "a C compiler to link with (`cc`)",
        is_there: || works("cc", &["--version"]),
        choices: &[&["gcc", "libc6-dev"]],
    },
    Need {
        what: "a C++ compiler (`c++`)",
        is_there: || works("c++", &["--version"]),
        choices: &[&["g++"]],
    },
    Need {
        what: "`make`",
        is_there: || works("make", &["--version"]),
        choices: &[&["make"]],
    },
    Need {
        what: "`pkg-config`",
        is_there: || works("pkg-config", &["--version"]),
        choices: &[&["pkg-config"]],
    },
    Need {
        what: "the headers of OpenSSL",
        is_there: || works("pkg-config", &["--exists", "openssl"]),
        choices: &[&["libssl-dev"]],
    },
    Need {
        what: "libclang with its headers",
        is_there: || works("clang", &["--version"]) || has_libclang(Path::new("/usr/lib")),
        // The versioned packages are half as large as the other, but only some releases have them.
        choices: &[
            &["libclang1-14", "libclang-common-14-dev"],
            &["libclang-dev"],
        ],
    },
    Need {
        what: "certificates of the authorities that sign web sites",
        is_there: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists(),
        choices: &[&["ca-certificates"]],
    },
    Need {
        what: "Java 17 or newer",
        is_there: || kafka::check_java().is_ok(),
        choices: &[&["openjdk-17-jre-headless"], &["default-jre-headless"]],
    },
    Need {
        what: "Maven (`mvn`)",
        is_there: || works("mvn", &["--version"]),
        choices: &[&["maven"]],
    },
    Need {
        what: "Python's pip (`python3 -m pip`)",
        is_there: || works("python3", &["-m", "pip", "--version"]),
        choices: &[&["python3", "python3-pip"]],
    },
    Need {
        what: "`kcat`, a Kafka client",
        is_there: || works("kcat", &["-V"]),
        choices: &[&["kcat"]],
    },
];

/// Sees to it that everything is there; does nothing when it is.
///
/// # Errors
/// When something is missing and cannot be installed from here; the message has the command.
pub fn prepare() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !works("apt-get", &["--version"]) {
        let packages = packages(&missing, |_| true);
        bail!(
            "missing: {}; install it by your system's means (Debian's packages are: {})",
            names(&missing),
            packages.join(" ")
        );
    }
    if !is_root() {
        let packages = packages(&missing, exists);
        bail!(
            "missing: {}; install it, then run the same again: sudo apt-get update && sudo apt-get \
             install --yes {}",
            names(&missing),
            packages.join(" ")
        );
    }
    install("apt-get", &["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages(&missing, exists));
    install("apt-get", &arguments)?;
    let missing = self::missing();
    if !missing.is_empty() {
        bail!(
            "still missing after apt-get has installed it: {}; see whether another program of that \
             name stands first in PATH",
            names(&missing)
        );
    }
    Ok(())
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.is_there)()).collect()
}

fn names(needs: &[&Need]) -> String {
    let names: Vec<&str> = needs.iter().map(|need| need.what).collect();
    names.join(", ")
}

/// The packages of all needs; the last choice of a need is taken when none exists.
fn packages(needs: &[&Need], exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let choose = |need: &&Need| {
        let mut choices = need.choices.iter();
        let choice = choices.find(|choice| choice.iter().all(|package| exists(package)));
        choice.or(need.choices.last()).copied().unwrap_or_default()
    };
    needs.iter().flat_map(choose).copied().collect()
}

/// True when apt could install the package; that it has heard of it is not enough.
fn exists(package: &str) -> bool {
    works("apt-get", &["install", "--simulate", "--yes", package])
}

/// True when a folder of LLVM below `libraries` has the library that bindgen loads, and the headers
/// that come with a compiler.
fn has_libclang(libraries: &Path) -> bool {
    folders(libraries)
        .filter(|(name, _)| name.starts_with("llvm-"))
        .any(|(_, llvm)| {
            // `libclang-cpp.so` is another library.
            let is_library = |(name, _): (String, _)| {
                let rest = name.strip_prefix("libclang").unwrap_or_default();
                rest.contains(".so") && !rest.starts_with("-cpp")
            };
            let has_header =
                |(_, version): (String, PathBuf)| version.join("include/stdbool.h").exists();
            folders(&llvm.join("lib")).any(is_library)
                && folders(&llvm.join("lib/clang")).any(has_header)
        })
}

/// Names and paths of what is in a folder; nothing when there is no such folder.
fn folders(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, entry.path())
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<&'static Need> {
        NEEDS.iter().collect()
    }

    #[test]
    fn the_first_choice_that_exists_is_taken() {
        let on_debian_12 = packages(&all(), |_| true);
        assert!(on_debian_12.contains(&"libclang1-14"), "{on_debian_12:?}");
        assert!(!on_debian_12.contains(&"libclang-dev"), "{on_debian_12:?}");
        let later = packages(&all(), |package| !package.contains("-1"));
        assert!(later.contains(&"libclang-dev"), "{later:?}");
        assert!(later.contains(&"default-jre-headless"), "{later:?}");
        assert!(
            !later.iter().any(|package| package.contains("-14")),
            "{later:?}"
        );
        // Before `apt-get update` nothing exists; the message names packages all the same.
        assert!(packages(&all(), |_| false).contains(&"g++"));
    }

    #[test]
    fn libclang_needs_both_the_library_and_the_headers() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let lib = folder.path().join("llvm-14/lib");
        let headers = lib.join("clang/14.0.6/include");
        fs::create_dir_all(&headers)?;
        fs::write(lib.join("libclang-cpp.so.14"), "")?;
        fs::write(headers.join("stdbool.h"), "")?;
        assert!(!has_libclang(folder.path()));
        fs::write(lib.join("libclang-14.so.1"), "")?;
        assert!(has_libclang(folder.path()));
        fs::remove_file(headers.join("stdbool.h"))?;
        assert!(!has_libclang(folder.path()));
        assert!(!has_libclang(Path::new("/nowhere")));
        Ok(())
    }
}
