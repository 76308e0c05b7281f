//! Topic settings under Kafka's names: text in, typed values out, clear words for what cannot be.

use std::collections::BTreeMap;

use highwater_proto::ByteSize;
use highwater_proto::v1::ErrorCode;

use crate::command::Refusal;

/// The largest batch that any topic may accept.
const LARGEST_BATCH: u64 = 64 << 20;
/// The whole, in millionths.
const PPM: u32 = 1_000_000;
/// The smallest sensible segment.
const SMALLEST_SEGMENT: i64 = 64 << 10;

/// A topic's settings, defaults included. Times are milliseconds, -1 is without bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Largest batch, in bytes.
    pub max_message_bytes: usize,
    /// The broker's clock decides timestamps.
    pub log_append_time: bool,
    /// A segment is closed at this size.
    pub segment_bytes: ByteSize,
    /// A segment is closed at this age.
    pub segment_ms: i64,
    /// Records older than this may go.
    pub retention_ms: i64,
    /// What lies beyond this size may go.
    pub retention_bytes: i64,
    /// What becomes of old records.
    pub cleanup: CleanupPolicy,
    /// A record without value is kept this long after its first compaction.
    pub delete_retention_ms: i64,
    /// The log is compacted when more than this part of it is new, in millionths.
    pub min_dirty_ppm: u32,
    /// Records younger than this are not compacted.
    pub min_compaction_lag_ms: i64,
    /// The log is compacted when a record that may be is this old.
    pub max_compaction_lag_ms: i64,
}

/// What becomes of old records (`cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They go by age and size.
    pub delete: bool,
    /// Only the latest of each key is kept.
    pub compact: bool,
}

impl CleanupPolicy {
    fn read(key: &str, value: &str) -> Result<Self, Refusal> {
        let mut policy = Self {
            delete: false,
            compact: false,
        };
        for word in value.split(',').map(str::trim) {
            match word {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => {
                    return Err(invalid(format!(
                        "{key}={value}: give delete, compact, or compact,delete"
                    )));
                }
            }
        }
        Ok(policy)
    }
}

/// What a batch must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// Largest batch, in bytes.
    pub max_message_bytes: usize,
    /// The broker's clock decides timestamps.
    pub log_append_time: bool,
    /// Every record needs a key.
    pub keyed: bool,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            log_append_time: false,
            segment_bytes: ByteSize(1 << 30),
            segment_ms: 7 * 24 * 3_600_000,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            cleanup: CleanupPolicy {
                delete: true,
                compact: false,
            },
            delete_retention_ms: 24 * 3_600_000,
            min_dirty_ppm: PPM / 2,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
        }
    }
}

impl TopicSettings {
    /// Reads settings over the defaults.
    ///
    /// # Errors
    /// The first key or value that cannot be, in one line.
    pub fn read(configs: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let mut settings = Self::default();
        for (key, value) in configs {
            settings.set(key, value)?;
        }
        if settings.min_compaction_lag_ms > settings.max_compaction_lag_ms {
            let text = "min.compaction.lag.ms must not be above max.compaction.lag.ms";
            return Err(invalid(text.to_owned()));
        }
        Ok(settings)
    }
    /// What a batch must keep to.
    #[must_use]
    pub fn write_limits(&self) -> WriteLimits {
        let Self {
            max_message_bytes,
            log_append_time,
            cleanup,
            ..
        } = *self;
        WriteLimits {
            max_message_bytes,
            log_append_time,
            keyed: cleanup.compact,
        }
    }

    /// Whether there is such a setting.
    pub(crate) fn check_key(key: &str) -> Result<(), Refusal> {
        if KEYS.contains(&key) {
            return Ok(());
        }
        Err(unknown_key(key))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match key {
            "retention.ms" => self.retention_ms = number(key, value, -1)?,
            "retention.bytes" => self.retention_bytes = number(key, value, -1)?,
            "segment.ms" => self.segment_ms = number(key, value, 1)?,
            "segment.bytes" => {
                let bytes = number(key, value, SMALLEST_SEGMENT)?;
                self.segment_bytes = ByteSize(bytes.unsigned_abs());
            }
            "max.message.bytes" => self.max_message_bytes = largest_batch(key, value)?,
            "message.timestamp.type" => {
                let options = ["CreateTime", "LogAppendTime"];
                self.log_append_time = one_of(key, value, &options)? == "LogAppendTime";
            }
            "compression.type" if value == "producer" => {}
            "compression.type" => {
                return Err(unsupported(
                    key,
                    value,
                    "batches are kept as producers compress them; leave it at 'producer'",
                ));
            }
            "cleanup.policy" => self.cleanup = CleanupPolicy::read(key, value)?,
            "delete.retention.ms" => self.delete_retention_ms = number(key, value, 0)?,
            "min.cleanable.dirty.ratio" => self.min_dirty_ppm = ratio(key, value)?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = number(key, value, 0)?,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = number(key, value, 1)?,
            "min.insync.replicas" => {
                return Err(unsupported(
                    key,
                    value,
                    "a majority of the replicas is always needed; leave it out",
                ));
            }
            _ => return Err(unknown_key(key)),
        }
        Ok(())
    }
}

const KEYS: [&str; 12] = [
    "retention.ms",
    "retention.bytes",
    "segment.bytes",
    "segment.ms",
    "cleanup.policy",
    "delete.retention.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "compression.type",
    "message.timestamp.type",
];

fn unknown_key(key: &str) -> Refusal {
    let known = KEYS.join(", ");
    invalid(format!(
        "there is no topic setting '{key}'; known are {known}"
    ))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}

fn unsupported(key: &str, value: &str, why: &str) -> Refusal {
    Refusal::new(
        ErrorCode::Unsupported,
        format!("{key}={value} is not supported: {why}"),
    )
}

fn number(key: &str, value: &str, least: i64) -> Result<i64, Refusal> {
    match value.parse::<i64>() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(invalid(format!(
            "{key}={value}: give a whole number of at least {least}"
        ))),
    }
}

/// A part of the whole, in millionths.
fn ratio(key: &str, value: &str) -> Result<u32, Refusal> {
    match value.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok((ratio * f64::from(PPM)).round() as u32),
        _ => Err(invalid(format!("{key}={value}: give a number from 0 to 1"))),
    }
}

fn largest_batch(key: &str, value: &str) -> Result<usize, Refusal> {
    let bytes = number(key, value, 1024)?.unsigned_abs();
    if bytes > LARGEST_BATCH {
        return Err(invalid(format!(
            "{key}={value}: the most is {LARGEST_BATCH}"
        )));
    }
    usize::try_from(bytes).map_err(|_| invalid(format!("{key}={value} is too large")))
}

fn one_of<'a>(key: &str, value: &'a str, options: &[&str]) -> Result<&'a str, Refusal> {
    if options.contains(&value) {
        return Ok(value);
    }
    Err(invalid(format!(
        "{key}={value}: give one of {}",
        options.join(", ")
    )))
}

/// The most characters in a topic name.
const LONGEST_NAME: usize = 249;

/// Checks a topic name by Kafka's rules.
///
/// # Errors
/// In one line.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let refused = |why: &str| {
        Err(Refusal::new(
            ErrorCode::InvalidTopicName,
            format!("topic name '{name}': {why}"),
        ))
    };
    if name.is_empty() || name == "." || name == ".." {
        return refused("it must not be empty, '.' or '..'");
    }
    if name.len() > LONGEST_NAME {
        return refused("at most 249 characters");
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) {
        return refused("only ASCII letters, digits, '.', '_' and '-'");
    }
    Ok(())
}
