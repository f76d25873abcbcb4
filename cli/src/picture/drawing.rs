//! What a picture is made of: rectangles and words, each at a place and with words of its own.
//!
//! Owns coordinates and the cleaning of text. A template writes it down as SVG and escapes it.

use std::fmt;

use askama::Template;

/// The width of every picture, in units that a browser scales to its window.
pub(super) const WIDTH: f64 = 1200.0;
/// The longest text of a file name, a message or the like. What is longer is cut, and says so.
const MAX_TEXT_LEN: usize = 400;

/// Words around a place left of this would reach into the names at the left.
const MIN_MIDDLE: f64 = 200.0;

/// A coordinate or a length, written with one decimal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Px(pub(super) f64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded first, so that it never reads -0.0.
        let tenths = (self.0 * 10.0).round();
        write!(f, "{}", if tenths == 0.0 { 0.0 } else { tenths / 10.0 })
    }
}

/// A rectangle. Its class says how it looks, its title what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) class: &'static str,
    pub(super) x: Px,
    pub(super) y: Px,
    pub(super) width: Px,
    pub(super) height: Px,
    pub(super) title: String,
}

/// Where words are, seen from their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// Words at a place.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) class: &'static str,
    pub(super) x: Px,
    pub(super) y: Px,
    pub(super) anchor: Anchor,
    pub(super) text: String,
}

/// A picture, with a name and a description for those who can't see it.
#[derive(Template, Clone, Debug)]
#[template(path = "drawing.svg")]
pub(super) struct Drawing {
    /// Tells the pictures of a page apart.
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) height: Px,
    pub(super) shapes: Vec<Shape>,
    pub(super) labels: Vec<Label>,
}

impl Drawing {
    pub(super) fn new(id: &'static str, title: &str, description: &str) -> Self {
        Self {
            id,
            title: cleaned(title),
            description: cleaned(description),
            height: Px(0.0),
            shapes: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Adds a rectangle from `x` to `end`.
    pub(super) fn shape(
        &mut self,
        class: &'static str,
        (x, end): (f64, f64),
        (y, height): (f64, f64),
        title: &str,
    ) {
        let (x, width) = (Px(x), Px((end - x).max(0.0)));
        let title = cleaned(title);
        self.shapes.push(Shape { class, x, y: Px(y), width, height: Px(height), title });
    }

    pub(super) fn label(&mut self, class: &'static str, x: f64, y: f64, text: &str) {
        self.text(class, (x, y), Anchor::Start, text);
    }

    /// Adds words around `x`, or beginning there at the left end of the pictures.
    pub(super) fn label_at(&mut self, class: &'static str, x: f64, y: f64, text: &str) {
        let anchor = if x < MIN_MIDDLE { Anchor::Start } else { Anchor::Middle };
        self.text(class, (x, y), anchor, text);
    }

    fn text(&mut self, class: &'static str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        self.labels.push(Label { class, x: Px(x), y: Px(y), anchor, text: cleaned(text) });
    }

    /// Adds words that end at `x`.
    pub(super) fn label_before(&mut self, class: &'static str, x: f64, y: f64, text: &str) {
        self.text(class, (x, y), Anchor::End, text);
    }
}

/// Numbers from `from` to `to`, drawn to scale from `left` to `right`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) left: f64,
    pub(super) right: f64,
}

impl Scale {
    /// Returns where a number is; one outside is at the nearer end.
    #[expect(clippy::cast_precision_loss, reason = "a tenth of a pixel needs no more")]
    pub(super) fn x(&self, number: u64) -> f64 {
        let whole = (self.to - self.from).max(1) as f64;
        let part = (number.clamp(self.from, self.to) - self.from) as f64;
        self.left + (self.right - self.left) * part / whole
    }

    pub(super) fn span(&self, from: u64, to: u64) -> (f64, f64) {
        (self.x(from), self.x(to))
    }

    /// Returns round numbers, at most eight.
    pub(super) fn ticks(&self) -> Vec<u64> {
        let len = (self.to - self.from).max(1);
        let mut step: u64 = 1;
        for factor in [2, 5, 10].iter().cycle() {
            if len / step <= 7 {
                break;
            }
            // 1, 2, 5, 10, 20, 50 and so on.
            let power = 10_u64.pow(step.ilog10());
            step = power.saturating_mul(*factor);
        }
        let first = self.from.div_ceil(step);
        (first..=self.to / step).map(|count| count * step).take(8).collect()
    }
}

/// Returns a text that shows as itself: without characters that are not drawn, or that change the
/// direction of what follows, and not too long. The template escapes the rest.
pub(super) fn cleaned(text: &str) -> String {
    let is_drawn = |c: char| {
        let changes_direction = matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let is_no_character = matches!(c, '\u{fffe}'..='\u{ffff}');
        !c.is_control() && !changes_direction && !is_no_character
    };
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if clean.len() >= MAX_TEXT_LEN {
            clean.push('…');
            break;
        }
        if is_drawn(c) {
            clean.push(c);
        } else {
            clean.extend(c.escape_unicode());
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_where_they_belong_and_those_outside_at_the_ends() {
        let scale = Scale { from: 1_000, to: 3_000, left: 100.0, right: 300.0 };
        for (number, x) in
            [(1_000, 100.0), (2_000, 200.0), (3_000, 300.0), (0, 100.0), (9_000, 300.0)]
        {
            assert!((scale.x(number) - x).abs() < 1e-9, "{number}");
        }
        let nothing = Scale { from: 7, to: 7, left: 0.0, right: 10.0 };
        assert!(nothing.x(7).abs() < 1e-9);
        let all = Scale { from: 0, to: u64::MAX, left: 0.0, right: 10.0 };
        assert!((all.x(u64::MAX) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |from, to| Scale { from, to, left: 0.0, right: 1.0 }.ticks();
        assert_eq!(ticks(0, 7_000), [0, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000]);
        assert_eq!(ticks(950, 2_100), [1_000, 1_200, 1_400, 1_600, 1_800, 2_000]);
        assert_eq!(ticks(0, 0), [0]);
        for (from, to) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (3, 3 << 40)] {
            assert!((1..=8).contains(&ticks(from, to).len()), "{from} {to}: {:?}", ticks(from, to));
        }
    }

    #[test]
    fn text_is_shown_as_it_is_or_not_at_all() {
        assert_eq!(cleaned("a <b> & 'c' é 漢"), "a <b> & 'c' é 漢");
        assert_eq!(
            cleaned("a\nb\u{0}\u{202e}c\u{7f}\u{ffff}"),
            "a\\u{a}b\\u{0}\\u{202e}c\\u{7f}\\u{ffff}"
        );
        assert!(cleaned(&"é".repeat(10_000)).len() <= MAX_TEXT_LEN + 4);
        assert_eq!(
            [1.0, -0.01, 0.25, 1199.96].map(|px| Px(px).to_string()),
            ["1", "0", "0.3", "1200"]
        );
    }
}
