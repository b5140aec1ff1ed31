//! Load that rises and falls: stages, as k6 has them.
//!
//! A stage leads from where the last one ended, nothing before the first, to its own target in a straight
//! line. One with the target of the last holds it; one of no length jumps.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tidegate_settings::{ConfigError, parse_yaml, within_file};

use super::Arrivals;

/// More stages, a higher target and a longer time are a mistake.
const MOST: usize = 1_000;
const HIGHEST: f64 = 1e6;
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// A user is there though rounding has taken this much of him.
const ROUNDING: f64 = 1e-9;

/// Stages that follow each other: at least one, and together longer than nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stages(Vec<Stage>);

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What reports and objectives call it.
    pub name: Arc<str>,
    /// How long it lasts, in seconds.
    pub duration_s: f64,
    /// The load at its end: calls a second, or users.
    pub target: f64,
}

/// A stage as a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    name: Option<Arc<str>>,
    /// How long it lasts: `30s`.
    duration: String,
    target: f64,
}

/// A stage with where it begins.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: f64,
    lasts: f64,
    from: f64,
    to: f64,
}

// === impl Stages ===

impl Stages {
    /// Reads a list such as `1m:10,5m:50,1m:0`; `@` stands for `:` as well.
    pub fn parse(text: &str) -> Result<Self, String> {
        let stage = |text: &str| {
            let parts = text.rsplit_once([':', '@']);
            let wrong = || {
                format!("`{text}` is no stage; write its length and where it leads, such as 1m:50")
            };
            let (duration, target) = parts.ok_or_else(wrong)?;
            let target = target.trim().parse().map_err(|_| wrong())?;
            Ok(Written { name: None, duration: duration.trim().to_owned(), target })
        };
        let stages: Result<Vec<_>, String> = text.split(',').map(stage).collect();
        Self::of(stages?).map_err(|(_, message)| message)
    }

    /// Reads a YAML file: a list of `{ duration: 1m, target: 50, name: rise }`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        within_file(path, |text| {
            let written: Vec<Written> = parse_yaml(text)?;
            Self::of(written).map_err(|(number, message)| {
                ConfigError::at(&[&format!("[{number}]")], message).within(text)
            })
        })
    }

    /// Says which one is wrong, counted from 0, and how.
    fn of(written: Vec<Written>) -> Result<Self, (usize, String)> {
        if written.is_empty() || written.len() > MOST {
            return Err((0, format!("there are {} stages; 1 to {MOST} may be", written.len())));
        }
        let mut stages: Vec<Stage> = Vec::new();
        for (number, written) in written.into_iter().enumerate() {
            let stage = Stage::of(number, written).map_err(|message| (number, message))?;
            if stages.iter().any(|other| other.name == stage.name) {
                return Err((number, format!("two stages have the name `{}`", stage.name)));
            }
            stages.push(stage);
        }
        let stages = Self(stages);
        match stages.lasts() {
            Duration::ZERO => Err((0, "the stages last no time".to_owned())),
            long if long > LONGEST => Err((0, "the stages last more than 31 days".to_owned())),
            _ if stages.most() == 0.0 => Err((0, "no stage leads to any load".to_owned())),
            _ => Ok(stages),
        }
    }

    /// All of them, in their order.
    pub fn all(&self) -> &[Stage] {
        &self.0
    }

    /// How long they last together.
    pub fn lasts(&self) -> Duration {
        Duration::from_secs_f64(self.0.iter().map(|stage| stage.duration_s).sum())
    }

    /// The highest load of all.
    pub fn most(&self) -> f64 {
        self.0.iter().map(|stage| stage.target).fold(0.0, f64::max)
    }

    /// The name of the stage that it is at this time; the last where all are over.
    pub(crate) fn name_at(&self, at: Duration) -> Arc<str> {
        let at = at.as_secs_f64();
        let stages = self.0.iter().zip(self.pieces());
        let mut ahead = stages.filter(|(_, piece)| at < piece.end());
        let last = self.0.last().expect("there is at least one");
        ahead.next().map_or(last, |(stage, _)| stage).name.clone()
    }

    /// The load from the beginning to this time, added up: calls that came, or seconds of users.
    pub(crate) fn sum_to(&self, at: Duration) -> f64 {
        let at = at.as_secs_f64();
        let within = |piece: Piece| {
            let time = (at - piece.start).clamp(0.0, piece.lasts);
            piece.from * time + piece.slope() * time * time / 2.0
        };
        self.pieces().map(within).sum()
    }

    /// When calls are due that come by chance, at the rates that the stages lead to; what comes after
    /// the last of them never does.
    pub(crate) fn arrivals(&self, seed: u64) -> Arrivals {
        let mut random = SmallRng::seed_from_u64(seed);
        let pieces: Vec<_> = self.pieces().collect();
        let (mut place, mut before, mut sum) = (0, 0.0, 0.0);
        Box::new(std::iter::repeat_with(move || {
            // 1 - u lies in (0, 1], whose logarithm is finite.
            sum -= (1.0 - random.random::<f64>()).ln();
            while pieces.get(place).is_some_and(|piece| sum > before + piece.sum()) {
                before += pieces[place].sum();
                place += 1;
            }
            let due = pieces.get(place).map(|piece| piece.when(sum - before));
            due.map_or(Duration::MAX, Duration::from_secs_f64)
        }))
    }

    /// From this time on, when a user is there first; users are counted from 0.
    pub(crate) fn comes_in(&self, user: u64, from: Duration) -> Option<Duration> {
        let (needed, from) = (user as f64 + 1.0 - ROUNDING, from.as_secs_f64());
        let mut ahead = self.pieces().filter(|piece| from < piece.end());
        ahead.find_map(|piece| piece.reaches(needed, from)).map(Duration::from_secs_f64)
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.0.iter().scan((0.0, 0.0), |(start, from), stage| {
            let piece =
                Piece { start: *start, lasts: stage.duration_s, from: *from, to: stage.target };
            (*start, *from) = (piece.end(), stage.target);
            Some(piece)
        })
    }
}

// === impl Stage ===

impl Stage {
    fn of(number: usize, written: Written) -> Result<Self, String> {
        let Written { name, duration, target } = written;
        let read = duration.parse::<jiff::SignedDuration>().ok();
        let read = read.and_then(|read| Duration::try_from(read).ok());
        let lasts = read.ok_or_else(|| {
            format!(
                "`{duration}` is no length of a stage; write a number with its unit, such as 30s"
            )
        })?;
        if !(0.0..=HIGHEST).contains(&target) {
            return Err(format!("{target} is not from 0 to {HIGHEST}"));
        }
        let name = name.unwrap_or_else(|| format!("stage {}", number + 1).into());
        Ok(Self { name, duration_s: lasts.as_secs_f64(), target })
    }
}

// === impl Piece ===

impl Piece {
    fn end(&self) -> f64 {
        self.start + self.lasts
    }

    fn slope(&self) -> f64 {
        if self.lasts > 0.0 { (self.to - self.from) / self.lasts } else { 0.0 }
    }

    /// All of its load, added up.
    fn sum(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.lasts
    }

    /// When so much of its load has come.
    fn when(&self, sum: f64) -> f64 {
        // Of a·t + b·t²/2 = sum, in the form that is exact for both a of 0 and b of 0.
        let root = (self.from * self.from + 2.0 * self.slope() * sum).max(0.0).sqrt();
        self.start + (2.0 * sum / (self.from + root)).min(self.lasts)
    }

    /// When the load is that high first, from a time within on.
    fn reaches(&self, needed: f64, from: f64) -> Option<f64> {
        let from = from.max(self.start);
        let slope = self.slope();
        if self.from + slope * (from - self.start) >= needed {
            return Some(from);
        }
        let at = self.start + (needed - self.from) / slope;
        (slope > 0.0 && self.to >= needed).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(text: &str) -> Stages {
        Stages::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_list_reads_as_k6_writes_it() {
        let read = stages("1m:10, 5m@50,0s:5,90s:0");
        let told: Vec<_> =
            read.all().iter().map(|stage| (&*stage.name, stage.duration_s, stage.target)).collect();
        assert_eq!(
            told,
            [
                ("stage 1", 60.0, 10.0),
                ("stage 2", 300.0, 50.0),
                ("stage 3", 0.0, 5.0),
                ("stage 4", 90.0, 0.0)
            ]
        );
        assert_eq!((read.lasts(), read.most()), (Duration::from_secs(450), 50.0));
        for (text, why) in [
            ("1m", "`1m` is no stage"),
            ("1m:many", "`1m:many` is no stage"),
            ("soon:5", "`soon` is no length"),
            ("-1s:5", "`-1s` is no length"),
            ("1m:-5", "-5 is not from 0"),
            ("0s:5", "last no time"),
            ("1m:0", "no stage leads to any load"),
            ("1y:5", "`1y` is no length"),
            ("999h:5", "more than 31 days"),
        ] {
            let told = Stages::parse(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn a_file_names_its_stages_and_tells_mistakes_with_their_line() {
        let path =
            std::env::temp_dir().join(format!("tidegate-stages-{:x}", rand::random::<u64>()));
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a folder to write to");
            Stages::read(&path)
        };
        let good =
            read("- { duration: 10s, target: 5, name: rise }\n- { duration: 1m, target: 5 }\n");
        let names: Vec<_> =
            good.expect("stages").all().iter().map(|one| one.name.clone()).collect();
        assert_eq!(names, ["rise".into(), "stage 2".into()]);
        for (text, part) in [
            ("- { duration: 10s, target: 5 }\n- { duration: 10s, targt: 5 }\n", "target"),
            ("- { duration: 10s, target: 5 }\n- { duration: soon, target: 5 }\n", "line 2"),
            (
                "- { duration: 1s, target: 1, name: a }\n- { duration: 1s, target: 2, name: a }\n",
                "two stages",
            ),
        ] {
            let told = read(text).expect_err(text).to_string();
            assert!(told.contains(part), "{text}: {told}");
        }
        std::fs::remove_file(&path).expect("it was written");
    }

    #[test]
    fn calls_come_as_often_as_the_stages_say() {
        // 10 s up to 100 a second, 10 s there, a jump to 20, 10 s there, 10 s down to nothing.
        let stages = stages("10s:100,10s:100,0s:20,10s:20,10s:0");
        let due: Vec<f64> = stages
            .arrivals(1)
            .take_while(|due| *due < Duration::MAX)
            .map(|due| due.as_secs_f64())
            .collect();
        assert!(due.is_sorted() && due.last() < Some(&40.0));
        let within =
            |from: f64, to: f64| due.iter().filter(|due| (from..to).contains(*due)).count() as f64;
        for (from, to, expected) in [
            (0.0, 5.0, 125.0),
            (5.0, 10.0, 375.0),
            (10.0, 20.0, 1000.0),
            (20.0, 30.0, 200.0),
            (30.0, 35.0, 75.0),
            (35.0, 40.0, 25.0),
        ] {
            let calls = within(from, to);
            // Five standard deviations of what comes by chance.
            assert!((calls - expected).abs() < 5.0 * expected.sqrt(), "{from} to {to}: {calls}");
            let sum = stages.sum_to(seconds(to)) - stages.sum_to(seconds(from));
            assert!((sum - expected).abs() < 1e-6, "{from} to {to}: {sum}");
        }
    }

    #[test]
    fn users_come_in_and_leave_as_the_line_passes_them() {
        let stages = stages("10s:5,10s:5,10s:0,10s:2");
        let comes = |user, from| {
            let at = stages.comes_in(user, seconds(from))?.as_secs_f64();
            Some((at * 1e3).round() / 1e3)
        };
        assert_eq!(comes(0, 0.0), Some(2.0), "the line reaches one user after 2 s of 10");
        assert_eq!(comes(4, 0.0), Some(10.0));
        assert_eq!(comes(4, 15.0), Some(15.0), "there he stays");
        assert_eq!(comes(4, 21.0), None, "the line has passed him, and leads no more so high");
        assert_eq!(comes(0, 29.0), Some(35.0), "and this one again");
        assert_eq!(comes(5, 0.0), None);
    }

    #[test]
    fn a_moment_has_the_name_of_its_stage() {
        let stages = stages("10s:5,0s:9,10s:9");
        let names = [0.0, 9.99, 10.0, 99.0].map(|at| stages.name_at(seconds(at)).to_string());
        assert_eq!(names, ["stage 1", "stage 1", "stage 3", "stage 3"]);
    }
}
