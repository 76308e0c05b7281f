//! The reference page of all keys, rendered from their tables.

use std::fmt::Write as _;

use super::Config;
use super::keys::{KEYS, SECTIONS};

/// `docs/configuration.md`. A test compares the file with this text.
#[must_use]
pub fn reference() -> String {
    let defaults = Config::default();
    let mut page = String::from(INTRODUCTION);
    for (section, meaning) in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## [{section}]\n\n{}\n\n", meaning.trim());
        page.push_str("| key | default | value | meaning |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let default = match (key.show)(&defaults) {
                text if text.is_empty() => "none".to_owned(),
                text => format!("`{text}`"),
            };
            let _ = writeln!(
                page,
                "| `{}` | {default} | {} | {} |",
                key.name,
                key.expected,
                key.doc.trim()
            );
        }
    }
    page
}

const INTRODUCTION: &str = "\
# Configuration

A broker reads one TOML file (`highwater server --config FILE`). Every key can be overridden by an
environment variable, HIGHWATER_SECTION_KEY: `budget_bytes` under `[wal]` is
`HIGHWATER_WAL_BUDGET_BYTES`. A flag beats both: `--set wal.budget_bytes=2GiB`, and the common keys
have flags of their own (`highwater server --help`). A name that does not exist is refused, with the
nearest one that does.

Sizes are whole numbers with a unit (`64MiB`, `1GB`) or plain bytes; times are whole numbers with a
unit (`100ms`, `5s`, `1m`, `1h`) or plain milliseconds. A list in a variable or a flag is separated
by commas.

`HIGHWATER_LOG` sets what is logged (`info`, `debug`, `highwater_wal=trace,info`).

```toml
[node]
id = 1
data_dir = \"/var/lib/highwater\"
join = [\"broker-1:9094\", \"broker-2:9094\", \"broker-3:9094\"]
advertised_address = \"broker-1:9094\"

[wal]
budget_bytes = \"8GiB\"
```
";
