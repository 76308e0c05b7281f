//! Stand-ins for a payment provider and a network. As real ones they take an idempotency key and
//! remember it; each effect, and each one suppressed, goes into a journal outside of every broker
//! and store, from which the checker judges.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::domain::context::{EffectKind, Outside};
use crate::money::Cents;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What.
    pub kind: EffectKind,
    /// For which order: with the kind, the idempotency key.
    pub order_id: String,
    /// How much.
    pub amount: Cents,
    /// The key was known, and nothing happened.
    pub suppressed: bool,
}

/// A provider with its journal.
#[derive(Debug)]
pub struct Provider {
    file: File,
    seen: BTreeSet<(EffectKind, String)>,
    unwritten: String,
    forgets: bool,
}

const KINDS: [(EffectKind, &str); 5] = [
    (EffectKind::Authorise, "authorise"),
    (EffectKind::Capture, "capture"),
    (EffectKind::Void, "void"),
    (EffectKind::Activate, "activate"),
    (EffectKind::Deactivate, "deactivate"),
];

impl Provider {
    /// Opens the journal, or starts one. With `forgets`, known keys have their effect again.
    ///
    /// # Errors
    /// Those of the file system, and a journal that is damaged.
    pub fn open(path: &Path, forgets: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let (effects, whole) = parse(&text).map_err(io::Error::other)?;
        if whole < text.len() {
            // A torn last line: the process died before it could have told anybody of it.
            file.set_len(whole as u64)?;
        }
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let seen = effects.into_iter().map(|e| (e.kind, e.order_id));
        Ok(Self {
            file,
            seen: seen.collect(),
            unwritten: String::new(),
            forgets,
        })
    }

    /// Returns when everything that happened is on the disk.
    ///
    /// # Errors
    /// Those of the file system. What the disk holds is then unknown.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        self.file.write_all(self.unwritten.as_bytes())?;
        self.unwritten.clear();
        self.file.sync_data()
    }
}

impl Outside for Provider {
    fn effect(&mut self, kind: EffectKind, order_id: &str, amount: Cents) {
        let fresh = self.seen.insert((kind, order_id.to_owned()));
        let effect = Effect {
            kind,
            order_id: order_id.to_owned(),
            amount,
            suppressed: !fresh && !self.forgets,
        };
        self.unwritten.push_str(&line(&effect));
        if self.forgets
            && kind == EffectKind::Capture
            && crate::order::fnv(order_id.as_bytes()).is_multiple_of(50)
        {
            // It takes some customers' money twice.
            self.unwritten.push_str(&line(&effect));
        }
    }
}

fn line(effect: &Effect) -> String {
    let kind = KINDS.iter().find(|(kind, _)| *kind == effect.kind);
    let kind = kind.map_or("", |(_, name)| *name);
    let what = if effect.suppressed {
        "suppressed"
    } else {
        "done"
    };
    let body = format!("{what} {kind} {} {}", effect.order_id, effect.amount.0);
    format!("{body} {:016x}\n", crate::order::fnv(body.as_bytes()))
}

/// The effects of a journal, and how many of its bytes are whole lines. A torn last line is left
/// out.
///
/// # Errors
/// A description of the first other line that does not read.
pub fn parse(text: &str) -> Result<(Vec<Effect>, usize), String> {
    let mut effects = Vec::new();
    let mut whole = 0;
    for (at, raw) in text.split_inclusive('\n').enumerate() {
        match raw.strip_suffix('\n').and_then(parse_line) {
            Some(effect) => effects.push(effect),
            None if whole + raw.len() == text.len() => break,
            None => {
                return Err(format!(
                    "line {} of the journal is damaged: {raw:?}",
                    at + 1
                ));
            }
        }
        whole += raw.len();
    }
    Ok((effects, whole))
}

fn parse_line(line: &str) -> Option<Effect> {
    let (body, sum) = line.rsplit_once(' ')?;
    if u64::from_str_radix(sum, 16).ok()? != crate::order::fnv(body.as_bytes()) {
        return None;
    }
    let mut fields = body.split(' ');
    let suppressed = match fields.next()? {
        "done" => false,
        "suppressed" => true,
        _ => return None,
    };
    let name = fields.next()?;
    let (kind, _) = KINDS.into_iter().find(|(_, known)| *known == name)?;
    Some(Effect {
        kind,
        order_id: fields.next()?.to_owned(),
        amount: Cents(fields.next()?.parse().ok()?),
        suppressed,
    })
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
