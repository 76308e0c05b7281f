//! How far a run is: a bar on a terminal, a line for each stage and fault anywhere.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::run::{Event, Listener};

/// What is shown.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of a run in which clients work for this long.
    pub(super) fn new(time: Duration) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} s, {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::new(time.as_secs()).with_style(style),
        }
    }

    pub(super) fn listener(&self) -> Listener {
        let bar = self.bar.clone();
        Arc::new(move |event| match event {
            Event::Working(so_far, operations) => {
                bar.set_position(so_far.as_secs());
                bar.set_message(format!("{operations} operations"));
            }
            Event::Stage(name) => bar.suspend(|| eprintln!("{name}")),
            Event::Fault(name) => bar.suspend(|| eprintln!("  fault: {name}")),
        })
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
