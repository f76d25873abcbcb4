//! `bulla segments --map`: each segment file as a line of blocks, to scale.
//!
//! Owns the drawing, purely: it is given what was measured. A part that is shorter
//! than a block still gets one, so that a torn frame in a large file shows.

use anstyle::{AnsiColor, Style};
use bulla_recovery::{Report, SegmentBytes};

use super::measured::Measured;
use crate::error::Result;
use crate::numbers::size;
use crate::output::Out;
use crate::terminal::{BAD, GOOD, WARNING};

/// What a block stands for, in the order in which parts lie in a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Header,
    Live,
    Dead,
    Torn,
    Unread,
    Zero,
    /// Everything before it is proved to be durable.
    DurableEnd,
}

const PARTS: [Part; 7] =
    [Part::Header, Part::Live, Part::DurableEnd, Part::Dead, Part::Torn, Part::Unread, Part::Zero];

impl Part {
    const fn block(self, unicode: bool) -> char {
        match (self, unicode) {
            (Self::Header, true) => '▌',
            (Self::Live, true) => '█',
            (Self::Dead, true) => '▒',
            (Self::Torn, true) => '▚',
            (Self::Unread, true) => '╳',
            (Self::Zero, true) => '·',
            (Self::DurableEnd, true) => '┃',
            (Self::Header, false) => 'H',
            (Self::Live, false) => '#',
            (Self::Dead, false) => '-',
            (Self::Torn, false) => '~',
            (Self::Unread, false) => 'X',
            (Self::Zero, false) => '.',
            (Self::DurableEnd, false) => '|',
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Header => AnsiColor::Blue.on_default(),
            Self::Live => GOOD,
            Self::Dead | Self::Zero => Style::new().dimmed(),
            Self::Torn => WARNING,
            Self::Unread => BAD,
            Self::DurableEnd => Style::new().bold(),
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Live => "live frames",
            Self::Dead => "dead",
            Self::Torn => "torn",
            Self::Unread => "unread",
            Self::Zero => "zeros",
            Self::DurableEnd => "proved durable up to here",
        }
    }
}

/// Blocks of the longest segment, on a terminal that is wide enough.
const MAX_BLOCKS: usize = 96;
/// Blocks on a terminal however narrow.
const MIN_BLOCKS: usize = 16;
/// Columns of a terminal whose width is unknown.
const DEFAULT_COLUMNS: usize = 80;

/// Prints a line for each segment, and the legend.
pub(super) fn print(all: &[Measured<'_>], found: &Report, out: &mut Out) -> Result<()> {
    let unicode = is_unicode();
    let longest = all.iter().map(Measured::file_len).max().unwrap_or(0);
    let number_of = |measured: &Measured<'_>| measured.segment.number.to_string();
    let digits = all.iter().map(|measured| number_of(measured).len()).max().unwrap_or(0);
    // A number, two spaces, the blocks and a mark, two spaces, a length.
    let blocks = columns().saturating_sub(digits + 15).clamp(MIN_BLOCKS, MAX_BLOCKS);
    for measured in all {
        let len = measured.file_len();
        let line = blocks_of(&measured.bytes, durable_offset(measured, found), longest, blocks);
        let padding = " ".repeat((blocks + 1).saturating_sub(line.len()));
        let line = painted(&line, unicode, out);
        let number = number_of(measured);
        out.line(format_args!("{number:>digits$}  {line}{padding}  {:>10}", size(len)))?;
    }
    out.line("")?;
    let legend = PARTS.map(|part| format!("{} {}", painted(&[part], unicode, out), part.meaning()));
    out.line(legend.join("  "))?;
    out.line(format_args!("one block is {}", size(longest.div_ceil(blocks as u64))))
}

/// Returns the offset in the file at which the proved durable part of the log ends, if it ends
/// inside this segment.
fn durable_offset(measured: &Measured<'_>, found: &Report) -> Option<u64> {
    let ((from, to), base) = measured.segment.live.zip(measured.segment.base)?;
    let durable = found.durable_lsn;
    let is_inside = durable > from && durable <= to;
    is_inside.then(|| measured.bytes.header + durable.distance_from(base))
}

/// Returns the blocks of a file. `longest` bytes take `width` blocks.
fn blocks_of(bytes: &SegmentBytes, durable: Option<u64>, longest: u64, width: usize) -> Vec<Part> {
    let lens = [
        (Part::Header, bytes.header),
        (Part::Live, bytes.live),
        (Part::Dead, bytes.dead),
        (Part::Torn, bytes.torn),
        (Part::Unread, bytes.unread),
        (Part::Zero, bytes.zero),
    ];
    let len: u64 = lens.iter().map(|(_, len)| len).sum();
    let width = width as u64;
    let total = (len * width).div_ceil(longest.max(1));
    let mut blocks = Vec::new();
    let mut end = 0;
    for (part, len) in lens.into_iter().filter(|(_, len)| *len > 0) {
        end += len;
        let until = (end * width / longest.max(1)).max(blocks.len() as u64 + 1);
        blocks.resize(usize::try_from(until).unwrap_or(usize::MAX), part);
    }
    // Rounding may have left the last block out, and short parts may have added some.
    let last = blocks.last().copied().unwrap_or(Part::Zero);
    blocks.resize(usize::try_from(total).unwrap_or(usize::MAX).max(1), last);
    if let Some(durable) = durable {
        let at = usize::try_from(durable * width / longest.max(1)).unwrap_or(usize::MAX);
        let is_live = |part: &Part| *part == Part::Live;
        let first = blocks.iter().position(is_live).unwrap_or(0);
        let last = blocks.iter().rposition(is_live).unwrap_or(0);
        // Between blocks, and never before the first live one: it may be drawn too long.
        blocks.insert(at.clamp(first + 1, last + 1), Part::DurableEnd);
    }
    blocks
}

/// Returns the blocks as text; neighbours of one part share their colour.
fn painted(blocks: &[Part], unicode: bool, out: &Out) -> String {
    let runs = blocks.chunk_by(|a, b| a == b);
    let text = runs.filter_map(|run| {
        let part = run.first()?;
        Some(out.painted(part.style(), &part.block(unicode).to_string().repeat(run.len())))
    });
    text.collect()
}

/// Returns whether the locale says that the terminal shows UTF-8.
fn is_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_uppercase();
        locale.contains("UTF-8") || locale.contains("UTF8")
    })
}

/// Returns the width of the terminal.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(DEFAULT_COLUMNS, |size| match size.ws_col {
        0 => DEFAULT_COLUMNS,
        columns => columns.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(bytes: &SegmentBytes, durable: Option<u64>, longest: u64, width: usize) -> String {
        let blocks = blocks_of(bytes, durable, longest, width);
        blocks.into_iter().map(|part| part.block(false)).collect()
    }

    #[test]
    fn parts_are_to_scale_and_the_shortest_still_shows() {
        let bytes = SegmentBytes {
            header: 4 << 10,
            live: 508 << 10,
            torn: 512,
            zero: (512 << 10) - 512,
            ..SegmentBytes::default()
        };
        assert_eq!(drawn(&bytes, None, 1 << 20, 16), "H#######~.......");
        assert_eq!(drawn(&bytes, Some(256 << 10), 1 << 20, 16), "H###|####~.......");
        // Also where all of it takes less than a block.
        let short =
            SegmentBytes { header: 512, live: 512, zero: 1 << 20, ..SegmentBytes::default() };
        assert_eq!(drawn(&short, Some(1024), (1 << 20) + 1024, 8), "H#|......");
        // Half as long as the longest.
        assert_eq!(drawn(&bytes, None, 2 << 20, 16), "H###~...");
        assert_eq!(drawn(&SegmentBytes::default(), None, 1 << 20, 16), ".");
    }

    #[test]
    fn line_is_never_longer_than_the_file_is() {
        for live in (0..=64 << 10).step_by(1000) {
            for torn in [0, 512, 8 << 10] {
                let zero = (128 << 10) - live - torn - 4096;
                let bytes =
                    SegmentBytes { header: 4096, live, torn, zero, ..SegmentBytes::default() };
                assert_eq!(blocks_of(&bytes, None, 128 << 10, 32).len(), 32, "{live} {torn}");
            }
        }
    }
}
