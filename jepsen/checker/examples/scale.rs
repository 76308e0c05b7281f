//! Writes a history of any size, and times the reading and the check of one:
//!
//!     cargo run --release -p highwater-checker --example scale -- write 10000000 history.edn
//!     cargo run --release -p highwater-checker --example scale -- check history.edn

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement has a clock and files; what it measures has neither"
)]

use std::env;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::time::Instant;

use highwater_checker::{
    Action, Function, History, Key, Kind, Notation, Offset, Operation, Options, Process, Value,
    check, format_line, read,
};

/// Partitions; each has one writer and one reader, and one in ten operations is a poll.
const KEYS: u32 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["write", operations, path] => write(operations.parse()?, path)?,
        ["check", path] => time(path)?,
        _ => return Err("write OPERATIONS PATH, or check PATH".into()),
    }
    Ok(())
}

fn time(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let history = read(
        BufReader::with_capacity(1 << 20, File::open(path)?),
        Notation::Edn,
    )?;
    let read_s = began.elapsed().as_secs_f64();
    let verdict = check(&history, &Options::default())?;
    println!(
        "read in {read_s:.1} s, {:.1} s with the check",
        began.elapsed().as_secs_f64()
    );
    print!("{verdict}");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or("the peak of memory is not known here"));
    Ok(())
}

struct Writer {
    file: BufWriter<File>,
    index: u64,
}

impl Writer {
    fn add(
        &mut self,
        kind: Kind,
        process: u64,
        function: Function,
        actions: Vec<Action>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (index, process) = (self.index, Process(process));
        let operation = Operation::new(index, index * 1_000, kind, process, function, actions);
        let mut one = History::new();
        one.push(&operation)?;
        if let Some(entry) = one.get(0) {
            writeln!(self.file, "{}", format_line(&entry, Notation::Edn))?;
        }
        self.index += 1;
        Ok(())
    }
}

fn write(operations: u64, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut writer = Writer { file, index: 0 };
    let mut at = 0;
    while writer.index < operations * 2 {
        for key in (0..KEYS).map(Key) {
            let (sender, reader) = (u64::from(key.0), u64::from(KEYS + key.0));
            let value = |at: u64| Value(i64::try_from(at).unwrap_or(0));
            let send = |offset| {
                let value = value(at);
                vec![Action::Send { key, value, offset }]
            };
            writer.add(Kind::Invoke, sender, Function::Send, send(None))?;
            writer.add(Kind::Ok, sender, Function::Send, send(Some(Offset(at))))?;
            if at % 9 == 8 {
                let read = |at| Action::Read {
                    key,
                    offset: Offset(at),
                    value: value(at),
                };
                writer.add(Kind::Invoke, reader, Function::Poll, Vec::new())?;
                writer.add(
                    Kind::Ok,
                    reader,
                    Function::Poll,
                    (at - 8..=at).map(read).collect(),
                )?;
            }
        }
        at += 1;
    }
    writer.file.flush()?;
    Ok(())
}
