//! Figures as a table and as a document.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::stats::Sample;
use crate::terminal::Table;

/// What is wanted of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    /// At most so many times the cost of the floor.
    Ratio(f64),
    /// A median of at most so much.
    AtMost(f64),
}

/// Whether more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    /// A rate.
    More,
    /// A time or a size.
    Less,
}

/// Something else that was measured in the same run, turn by turn.
#[derive(Debug, Clone)]
pub(super) struct Floor {
    pub(super) what: &'static str,
    pub(super) sample: Sample,
}

/// One figure.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) measured: Sample,
    pub(super) floors: Vec<Floor>,
    pub(super) aim: Option<Aim>,
}

impl Figure {
    /// The floor that binds: the slowest.
    fn floor(&self) -> Option<&Floor> {
        let cost = |floor: &&Floor| match self.better {
            Better::More => -floor.sample.median(),
            Better::Less => floor.sample.median(),
        };
        self.floors.iter().max_by(|a, b| cost(a).total_cmp(&cost(b)))
    }

    /// How many times its floor it costs.
    fn ratio(&self) -> Option<f64> {
        let floor = self.floor()?.sample.median();
        let ours = self.measured.median();
        Some(match self.better {
            Better::More => floor / ours,
            Better::Less => ours / floor,
        })
    }

    fn reached(&self) -> Option<bool> {
        match self.aim? {
            Aim::Ratio(most) => Some(self.ratio()? <= most),
            Aim::AtMost(most) => Some(self.measured.median() <= most),
        }
    }

    fn verdict(&self) -> String {
        match (self.reached(), self.aim, self.ratio()) {
            (Some(true), ..) => "yes".to_owned(),
            (Some(false), Some(Aim::Ratio(_)), Some(ratio)) => format!("no: {ratio:.1}x"),
            (Some(false), Some(Aim::AtMost(most)), _) if most > 0.0 => {
                format!("no: {:.1}x of it", self.measured.median() / most)
            }
            (Some(false), ..) => "no".to_owned(),
            (None, ..) => String::new(),
        }
    }

    fn aimed(&self) -> String {
        match self.aim {
            Some(Aim::Ratio(most)) => format!("<= {most}x"),
            Some(Aim::AtMost(most)) => format!("<= {most} {}", self.unit).trim_end().to_owned(),
            None => String::new(),
        }
    }

    fn json(&self) -> Value {
        let floors = self.floors.iter().map(|floor| json!({ "what": floor.what, "measured": floor.sample.json() }));
        let (most, kind) = match self.aim {
            Some(Aim::Ratio(most)) => (Some(most), "ratio"),
            Some(Aim::AtMost(most)) => (Some(most), "at_most"),
            None => (None, "none"),
        };
        json!({
            "name": self.name, "what": self.what, "unit": self.unit,
            "better": if self.better == Better::More { "more" } else { "less" },
            "measured": self.measured.json(), "floors": floors.collect::<Vec<_>>(), "ratio": self.ratio(),
            "aim": { "kind": kind, "value": most }, "reached": self.reached(),
        })
    }
}

/// The table for people.
pub(super) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new(["FIGURE", "MEDIAN", "P95", "MIN..MAX", "FLOOR", "RATIO", "AIM", "REACHED"]);
    for figure in figures {
        let (min, max) = figure.measured.range();
        table.row([
            figure.name.to_owned(),
            format!("{} {}", short(figure.measured.median()), figure.unit).trim_end().to_owned(),
            short(figure.measured.p95()),
            format!("{}..{}", short(min), short(max)),
            figure.floor().map(|floor| short(floor.sample.median())).unwrap_or_default(),
            figure.ratio().map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
            figure.aimed(),
            figure.verdict(),
        ]);
    }
    table
}

/// What each figure is, and every floor it was measured beside.
pub(super) fn legend(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for figure in figures {
        let floor = |floor: &Floor| format!("{} {} {}", floor.what, short(floor.sample.median()), figure.unit);
        let floors: Vec<String> = figure.floors.iter().map(floor).collect();
        let beside = if floors.is_empty() { String::new() } else { format!("; beside {}", floors.join(", ")) };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{:width$}  {}{beside}", figure.name, figure.what);
    }
    text
}

/// The document.
pub(super) fn document(figures: &[Figure]) -> Value {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    json!({
        "format": "bench/1",
        "version": env!("CARGO_PKG_VERSION"),
        "build": build(),
        "cores": cores,
        "load": load(),
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    })
}

/// How this program was built.
pub(super) const fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// What else the machine did, as the system tells: the average of one minute.
pub(super) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// A number with as many digits as say something.
fn short(value: f64) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _infallible = match value.abs() {
        v if v >= 100.0 || v == 0.0 => write!(text, "{value:.0}"),
        v if v >= 10.0 => write!(text, "{value:.1}"),
        _ => write!(text, "{value:.2}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, measured: f64, floors: &[f64], aim: Aim) -> Figure {
        let floors = floors.iter().map(|value| Floor { what: "floor", sample: Sample::of(*value) }).collect();
        Figure {
            name: "x",
            what: String::new(),
            unit: "/s",
            better,
            measured: Sample::of(measured),
            floors,
            aim: Some(aim),
        }
    }

    #[test]
    fn the_slower_floor_counts_and_the_aim_is_told_honestly() {
        let rate = figure(Better::More, 100.0, &[400.0, 250.0], Aim::Ratio(3.0));
        assert_eq!((rate.ratio(), rate.verdict().as_str()), (Some(2.5), "yes"));
        let slow = figure(Better::More, 50.0, &[400.0, 250.0], Aim::Ratio(3.0));
        assert_eq!((slow.ratio(), slow.verdict().as_str()), (Some(5.0), "no: 5.0x"));
        let time = figure(Better::Less, 30.0, &[10.0, 20.0], Aim::Ratio(1.5));
        assert_eq!((time.ratio(), time.verdict().as_str()), (Some(1.5), "yes"));
        let late = figure(Better::Less, 150.0, &[], Aim::AtMost(100.0));
        assert_eq!((late.ratio(), late.verdict().as_str()), (None, "no: 1.5x of it"));
    }
}
