//! Shows that each rule finds what it is for, and only that.

use super::tree::{Manifest, Source, root};
use super::{crates, modules, style, text};

fn found(rule: fn(&Source) -> Vec<String>, path: &str, code: &str) -> usize {
    rule(&Source::new(path, code)).len()
}

#[test]
fn comments_and_literals_are_no_code() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("x(\"a\\\"b\") y", "x(      ) y"),
        ("r#\"a\"b\"# c", "         c"),
        ("br\"a\" c", "b     c"),
        ("'a' '\\n' 'b", "         'b"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("for x", "for x"),
    ] {
        assert_eq!(text::blank(text), code, "{text}");
    }
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let code = "fn a() {\n  if x { y }\n}\ntrait T { fn b(&self); fn c() {} }\ntype F = fn(u8);\n\
                fn d(x: [u8; 4])\nwhere\n  T: U,\n{\n}\n";
    let measured: Vec<(String, usize)> = text::functions(code)
        .into_iter()
        .map(|(name, _, lines)| (name, lines))
        .collect();
    let expected = [("a", 3), ("c", 1), ("d", 5)];
    assert_eq!(
        measured,
        expected.map(|(name, lines)| (name.to_owned(), lines))
    );
}

#[test]
fn sizes() {
    let long = "//! A file that is long.\n".to_owned() + &"\n".repeat(style::MOST_LINES - 1);
    assert_eq!(found(style::file_size, "a.rs", &long), 0);
    assert_eq!(found(style::file_size, "a.rs", &(long + "\n")), 1);
    let body = "\n".repeat(style::MOST_FUNCTION_LINES - 1);
    assert_eq!(
        found(style::function_size, "a.rs", &format!("fn a() {{{body}}}")),
        0
    );
    assert_eq!(
        found(
            style::function_size,
            "a.rs",
            &format!("fn a() {{\n{body}}}")
        ),
        1
    );
}

#[test]
fn purposes() {
    assert_eq!(
        found(style::purpose, "a.rs", "//! What this file is for.\n"),
        0
    );
    for text in [
        "",
        "use a;\n",
        "// What this is for.\n",
        "//!\n",
        "\n//! What this is for.\n",
    ] {
        assert_eq!(found(style::purpose, "a.rs", text), 1, "{text}");
    }
}

#[test]
fn steps() {
    let path = "broker/src/router.rs";
    for (text, expected) in [
        ("//! Step 3 of a produced record.\n", 0),
        (
            "//! Partition to shard.\n//!\n//! The same step of a fetched record.\n",
            0,
        ),
        ("//! Partition to shard.\n\n// step 3\n", 1),
        ("//! What is stepped over.\n", 1),
    ] {
        assert_eq!(found(style::steps, path, text), expected, "{text}");
        assert_eq!(found(style::steps, "broker/src/lib.rs", text), 0);
    }
    let moved = [Source::new("broker/src/route.rs", "//! Step 3.\n")];
    let lost = style::lost_steps(&moved);
    assert!(lost.iter().any(|lost| lost.contains(path)), "{lost:?}");
}

#[test]
fn cancellation() {
    let path = "client/src/producer/mod.rs";
    for (code, expected) in [
        ("/// Sends it.\npub async fn a() {}", 1),
        ("/// Sends it. Cancellation-safe.\npub async fn a() {}", 0),
        (
            "/// Not cancellation-safe.\n#[must_use]\npub async fn a() {}",
            0,
        ),
        (
            "/// Cancellation-safe.\npub fn b() {}\npub async fn a() {}",
            1,
        ),
        (
            "pub(crate) async fn a() {}\nasync fn b() {}\npub fn c() {}",
            0,
        ),
    ] {
        assert_eq!(found(style::cancellation, path, code), expected, "{code}");
        for elsewhere in [
            "client/src/cli/topic.rs",
            "client/tests/a.rs",
            "broker/src/a.rs",
        ] {
            assert_eq!(
                found(style::cancellation, elsewhere, code),
                0,
                "{elsewhere}"
            );
        }
    }
}

#[test]
fn marks() {
    let mark = ["TO", "DO"].concat();
    assert_eq!(
        found(style::unfinished, "a.rs", &format!("// {mark}: later\n")),
        1
    );
    assert_eq!(
        found(
            style::unfinished,
            "a.rs",
            &format!("// {mark}S are words\n")
        ),
        0
    );
    for left in [
        ["todo", "!()"],
        ["dbg", "!(x)"],
        ["#[", "ignore]"],
        ["unimplemented", "!()"],
    ] {
        let code = left.concat();
        assert_eq!(found(style::unfinished, "a.rs", &code), 1, "{code}");
        assert_eq!(
            found(style::unfinished, "a.rs", &format!("// no {code}")),
            0,
            "{code}"
        );
    }
}

#[test]
fn unsafe_blocks() {
    let code = "fn f() { unsafe { g() } }";
    assert_eq!(
        found(modules::unsafe_code, "broker/crates/wal/src/a.rs", code),
        1
    );
    assert_eq!(
        found(
            modules::unsafe_code,
            "broker/crates/segment/src/map.rs",
            code
        ),
        0
    );
    assert_eq!(
        found(
            modules::unsafe_code,
            "a.rs",
            "#![deny(unsafe_code)] // unsafe"
        ),
        0
    );
}

#[test]
fn surroundings() {
    for code in [
        "use std::fs::File;",
        "let now = std::time::Instant::now();",
        "use std::time::{Duration, Instant};",
        "SystemTime::now()",
        "std::thread::spawn(f)",
        "tokio::fs::read(path)",
    ] {
        assert_eq!(
            found(modules::surroundings, "broker/crates/wal/src/a.rs", code),
            1,
            "{code}"
        );
        assert_eq!(
            found(
                modules::surroundings,
                "broker/crates/wal/src/a_tests.rs",
                code
            ),
            0
        );
        assert_eq!(
            found(modules::surroundings, "broker/crates/env/src/a.rs", code),
            0
        );
        assert_eq!(
            found(modules::surroundings, "broker/src/process/a.rs", code),
            0
        );
    }
    let code = "use std::time::Duration; use tokio::time::Instant;";
    let code = code.replace("; ", ";\n");
    assert_eq!(
        found(modules::surroundings, "broker/src/router.rs", &code),
        0
    );
}

#[test]
fn layers() {
    for (path, code, expected) in [
        ("broker/src/router.rs", "use openraft::Raft;", 1),
        ("broker/crates/raft/src/a.rs", "use openraft::Raft;", 0),
        ("broker/src/router.rs", "// openraft::Raft decides", 0),
        (
            "broker/src/gate/mod.rs",
            "use highwater_proto::{ids, v1};",
            1,
        ),
        (
            "broker/src/gate/mod.rs",
            "fn f(x: v1::ProduceRequest) {}",
            1,
        ),
        ("broker/src/front/produce.rs", "use highwater_proto::v1;", 0),
        ("client/src/rpc.rs", "use highwater_proto::v1;", 0),
        ("broker/crates/shard/src/lib.rs", "use tonic::Status;", 1),
        ("broker/crates/wal/src/lib.rs", "use turmoil::net;", 1),
        ("client/src/lib.rs", "use highwater_broker::config;", 1),
        ("order-demo/src/lib.rs", "highwater_sim::run()", 1),
        ("broker/src/runtime/mod.rs", "let v1 = 1;", 0),
        (
            "broker/src/router.rs",
            "use highwater_proto::v1::LeaderHint;",
            0,
        ),
        (
            "broker/src/router.rs",
            "use highwater_proto::v1::{LeaderHint, FetchRequest};",
            1,
        ),
    ] {
        assert_eq!(
            found(modules::layers, path, code),
            expected,
            "{path}: {code}"
        );
    }
}

#[test]
fn unbounded_channels() {
    assert_eq!(
        found(modules::unbounded, "a.rs", "mpsc::unbounded_channel()"),
        1
    );
    assert_eq!(found(modules::unbounded, "a.rs", "mpsc::channel(8)"), 0);
}

fn manifest(name: &str, rest: &str) -> Manifest {
    let text = format!("[package]\nname = \"{name}\"\n{rest}");
    Manifest {
        path: "x/Cargo.toml".to_owned(),
        text,
    }
}

#[test]
fn edges() {
    for (name, rest, expected) in [
        (
            "highwater-client",
            "[dependencies]\nhighwater-proto.workspace = true",
            0,
        ),
        (
            "highwater-client",
            "[dependencies]\nhighwater-broker.workspace = true",
            1,
        ),
        (
            "highwater-client",
            "[dev-dependencies]\nhighwater-broker = { path = \"..\" }",
            1,
        ),
        (
            "highwater-broker",
            "[dependencies]\nhighwater-sim.workspace = true",
            1,
        ),
        (
            "highwater-broker",
            "[dependencies]\nopenraft.workspace = true",
            1,
        ),
        (
            "highwater-raft",
            "[dependencies]\nopenraft.workspace = true",
            0,
        ),
        (
            "highwater-wal",
            "[target.'cfg(unix)'.dependencies]\nhighwater-raft = \"1\"",
            1,
        ),
        ("highwater-new", "", 1),
    ] {
        assert_eq!(
            crates::edges(&manifest(name, rest)).len(),
            expected,
            "{name}: {rest}"
        );
    }
    assert!(!crates::missing(&[manifest("highwater-client", "")]).is_empty());
}

#[test]
fn formats_without_a_description_are_found() {
    let nowhere = root().join("broker/tests");
    assert_eq!(
        crates::formats(&nowhere).len(),
        16,
        "eight folders, two violations each"
    );
}
