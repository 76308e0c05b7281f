//! What `highwater demo` shows while it goes on: on a terminal a bar with orders by state, rates, lags
//! and brokers under it; anywhere a line for each thing that happens.

use std::sync::{Arc, Mutex, PoisonError};

use highwater_order_demo::driver::progress::{BrokerView, Event, Listener, View};
use indicatif::{ProgressBar, ProgressStyle};

/// Groups whose lags are shown.
const LAGS: usize = 5;

/// The view of a run.
pub struct Shown {
    bar: ProgressBar,
}

impl Shown {
    /// Of a run of so many orders.
    pub fn new(orders: u64) -> Self {
        let style = "{bar:30} {human_pos}/{human_len} ended, {elapsed}{msg}";
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::new(orders).with_style(style),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Takes news.
    pub fn listener(&self) -> Listener {
        let bar = self.bar.clone();
        let before = Arc::new(Mutex::new((0, 0)));
        Arc::new(move |event| match event {
            Event::Sample(view) => {
                let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
                let ended = view.sample.ended.saturating_sub(before.0);
                let events = view.sample.events.saturating_sub(before.1);
                *before = (view.sample.ended, view.sample.events);
                bar.set_position(view.sample.ended);
                bar.set_message(lines(&view, ended, events));
            }
            Event::Sending { orders, rate } => {
                bar.suspend(|| eprintln!("Sending {orders} orders, {rate:.0} per second"));
            }
            Event::Said(what) => bar.suspend(|| eprintln!("{what}")),
        })
    }
}

/// The lines under the bar.
fn lines(view: &View, ended: u64, events: u64) -> String {
    let open = view.sample.acknowledged.saturating_sub(view.sample.ended);
    let mut text =
        format!("\n  rates    {ended} orders/s ended, {events} order events/s, {open} open");
    let states = view.states.iter().filter(|(_, count)| **count > 0);
    let states: Vec<String> = states
        .map(|(state, count)| format!("{count} {state:?}"))
        .collect();
    if !states.is_empty() {
        text += &format!("\n  orders   {}", states.join(", "));
    }
    if !view.brokers.is_empty() {
        text += &format!("\n  lag      {}", lag(view));
        let brokers: Vec<String> = view.brokers.iter().map(broker).collect();
        text += &format!("\n  brokers  {}", brokers.join("; "));
    }
    text
}

/// The groups that are most behind.
fn lag(view: &View) -> String {
    if view.sample.lag.is_empty() {
        return "not known now".to_owned();
    }
    let mut lags: Vec<(&String, &u64)> = view.sample.lag.iter().collect();
    lags.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let rest: u64 = lags.iter().skip(LAGS).map(|(_, lag)| **lag).sum();
    let shown = lags
        .iter()
        .take(LAGS)
        .map(|(name, lag)| format!("{name} {lag}"));
    let shown: Vec<String> = shown.collect();
    format!("{}; {rest} in the others", shown.join(", "))
}

fn broker(view: &BrokerView) -> String {
    if view.runs {
        format!("{} up, leads {}", view.broker, view.leads)
    } else {
        format!("{} DOWN", view.broker)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_groups_that_are_most_behind_come_first_and_a_dead_broker_is_plain() {
        let mut view = View::default();
        view.sample.lag = (0..8).map(|n| (format!("group-{n}"), n)).collect();
        let leads = |broker, runs, leads| BrokerView {
            broker,
            runs,
            leads,
        };
        view.brokers = vec![leads(1, true, 20), leads(2, false, 0)];
        let text = lines(&view, 10, 80);
        assert!(text.contains("lag      group-7 7, group-6 6, "), "{text}");
        assert!(text.contains("; 3 in the others"), "{text}");
        assert!(text.contains("1 up, leads 20; 2 DOWN"), "{text}");
        view.sample.lag = BTreeMap::new();
        assert!(lines(&view, 0, 0).contains("not known now"));
    }
}
