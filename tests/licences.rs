//! Every crate that is linked in carries a licence that Apache-2.0 may be combined with.
//!
//! `cargo deny check` (deny.toml) says the same where that tool is installed; this needs nothing but cargo.

use std::process::Command;

const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Zlib",
    "CC0-1.0",
    "OpenSSL",
    "0BSD",
    "BSL-1.0",
];

#[test]
fn every_dependency_has_a_compatible_licence() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &host(),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo's metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let faults: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{}: {}", package["id"], package["license"]))
        .collect();
    assert!(packages.len() > 50, "the graph was read");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    assert!(is_allowed("MIT OR Apache-2.0"));
    assert!(is_allowed("MIT/Apache-2.0"));
    assert!(is_allowed("(MIT OR GPL-3.0) AND BSD-3-Clause"));
    assert!(!is_allowed("GPL-3.0"));
    assert!(!is_allowed("MIT AND AGPL-3.0"));
}

/// The target triple: crates of other platforms are not downloaded, and not shipped.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host line")
        .to_owned()
}

/// SPDX expressions as crates write them: AND of ORs, `/` for OR.
fn is_allowed(expression: &str) -> bool {
    expression
        .replace(['(', ')'], "")
        .replace('/', " OR ")
        .split(" AND ")
        .all(|term| term.split(" OR ").any(|licence| ALLOWED.contains(&licence.trim())))
}
