//! Rows from a CSV file, plain or in a zip archive, with progress.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bulla_engine::Token;
use csv::StringRecord;

use crate::error::{Error, Result};
use crate::mapping::MappingArgs;
use crate::progress;

/// Reads the file and passes every row's token to `each`, with its number from 0.
pub(crate) fn tokens(
    path: &Path,
    mapping: &MappingArgs,
    mut each: impl FnMut(Token, u64) -> Result<()>,
) -> Result<u64> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let is_zip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if !is_zip {
        let len = file.metadata().map_err(Error::file("inspect", path))?.len();
        return read(file, len, path, mapping, &mut each);
    }
    let zip_error = |source| Error::Zip { path: path.to_owned(), source };
    let mut archive = zip::ZipArchive::new(file).map_err(zip_error)?;
    let name = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .find(|name| name.to_ascii_lowercase().ends_with(".csv") && !name.starts_with("__MACOSX"))
        .ok_or_else(|| Error::Input {
            path: path.to_owned(),
            reason: "the archive contains no .csv file",
        })?;
    let member = archive.by_name(&name).map_err(zip_error)?;
    let len = member.size();
    read(member, len, path, mapping, &mut each)
}

/// Does the same with the contents of a file.
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
    let bar = progress::bytes(len);
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
    Ok(rows)
}
