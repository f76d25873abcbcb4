//! Rows from a CSV file, plain or in a zip archive, with progress.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use bulla_engine::Token;
use csv::StringRecord;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Result};
use crate::mapping::MappingArgs;

/// Reads the file and gives every row's token to `each`, with its number from 0.
pub(crate) fn tokens(
    path: &Path,
    mapping: &MappingArgs,
    mut each: impl FnMut(Token, u64) -> Result<()>,
) -> Result<u64> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let is_zip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if !is_zip {
        let len = file.metadata().map_err(Error::file("look at", path))?.len();
        return read(file, len, path, mapping, &mut each);
    }
    let zip_error = |source| Error::Zip { path: path.to_owned(), source };
    let mut archive = zip::ZipArchive::new(file).map_err(zip_error)?;
    let name = archive
        .file_names()
        .find(|name| name.to_ascii_lowercase().ends_with(".csv") && !name.starts_with("__MACOSX"))
        .map(str::to_owned)
        .ok_or_else(|| Error::Input {
            path: path.to_owned(),
            reason: "there is no .csv file in this archive",
        })?;
    let member = archive.by_name(&name).map_err(zip_error)?;
    let len = member.size();
    read(member, len, path, mapping, &mut each)
}

/// The same for bytes that are no file.
pub(crate) fn tokens_of(
    csv: &[u8],
    mapping: &MappingArgs,
    mut each: impl FnMut(Token),
) -> Result<u64> {
    let mut each = |token, _| {
        each(token);
        Ok(())
    };
    read(csv, csv.len() as u64, Path::new("-"), mapping, &mut each)
}

fn read(
    from: impl Read,
    len: u64,
    path: &Path,
    mapping: &MappingArgs,
    each: &mut dyn FnMut(Token, u64) -> Result<()>,
) -> Result<u64> {
    let bar = progress(len, "bytes");
    let csv_error = |source| Error::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_reader(bar.wrap_read(from));
    let headers = reader.headers().map_err(csv_error)?;
    let mapping = mapping
        .resolve(headers)
        .map_err(|source| Error::Mapping { path: path.to_owned(), source })?;
    let mut record = StringRecord::new();
    let mut rows = 0;
    while reader.read_record(&mut record).map_err(csv_error)? {
        let token = mapping.token(&record, rows).map_err(|source| Error::Row {
            path: path.to_owned(),
            row: rows + 1,
            source,
        })?;
        each(token, rows)?;
        rows += 1;
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// A progress bar on standard error, if that is a terminal.
pub(crate) fn progress(len: u64, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match unit {
        "bytes" => "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        _ => "{bar:30} {pos} of {len} {msg}, {eta} left",
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    bar.with_style(style).with_message(unit.to_owned())
}
