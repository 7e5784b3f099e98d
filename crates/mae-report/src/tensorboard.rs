//! TensorBoard event files, written without TensorFlow.
//!
//! An event file is a sequence of TFRecord frames, each holding one `Event` message.
//! The messages below are the few fields in use of TensorFlow's `event.proto` and `summary.proto`, by their
//! numbers there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::ReportError;

const PREFIX: &str = "events.out.tfevents.";

/// Writes one TensorBoard event file.
///
/// TensorBoard shows the folder that the file is in as one run, and reads all event files there in the order
/// of their names, so every start and resume of a run adds a file.
///
/// # Example
/// ```
/// # let run = tempfile::tempdir()?;
/// let mut events = mae_report::EventWriter::create(run.path(), 0)?;
/// events.scalar("loss", 1, 0.75)?;
/// events.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts an event file in `dir`, which is created if missing, for a run that has done `step` steps: 0
    /// when new.
    ///
    /// Has TensorBoard forget what earlier files in `dir` say about steps after `step`, or all of it if
    /// `step` is 0, because the run is about to say it again.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the folder or file cannot be created.
    pub fn create(dir: &Path, step: u64) -> Result<Self, ReportError> {
        fs::create_dir_all(dir).map_err(ReportError::io("create", dir))?;
        let path = next_file(dir).map_err(ReportError::io("read", dir))?;
        let file = File::create_new(&path).map_err(ReportError::io("create", &path))?;
        let mut writer = Self {
            path,
            file: BufWriter::new(file),
        };
        writer.event(0, What::FileVersion("brain.Event:2".to_owned()))?;
        // START discards what was said of its own step and later ones.
        // TensorBoard takes the first START of a run for its beginning and only the next ones for restarts,
        // so that a new run has to write one too.
        let first_repeated = if step == 0 { 0 } else { step.saturating_add(1) };
        writer.event(
            first_repeated,
            What::SessionLog(SessionLog {
                status: SessionStatus::Start.into(),
            }),
        )?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds the value of `tag` at `step`, which TensorBoard keeps as f32.
    ///
    /// Tags with a common part before a `/` are shown together.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file cannot be written to.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), ReportError> {
        self.summary(tag, step, Value::Simple(value as f32))
    }

    /// Adds an image, `png` being a whole PNG file of `height` x `width` pixels.
    ///
    /// # Errors
    /// - [`ReportError::Png`] if `png` is not a PNG of that size.
    /// - [`ReportError::Io`] if the file cannot be written to.
    pub fn image_png(
        &mut self,
        tag: &str,
        step: u64,
        png: &[u8],
        height: u32,
        width: u32,
    ) -> Result<(), ReportError> {
        let found = match png_header(png) {
            Some(header) if (header.height, header.width) == (height, width) => {
                let image = Image {
                    height: height as i32,
                    width: width as i32,
                    colorspace: header.channels,
                    encoded_image_string: png.to_vec(),
                };
                return self.summary(tag, step, Value::Image(image));
            }
            Some(header) => format!("one of {}x{}", header.height, header.width),
            None => format!("{} bytes of something else", png.len()),
        };
        Err(ReportError::Png {
            tag: tag.to_owned(),
            expected: format!("{height}x{width}"),
            found,
        })
    }

    /// Hands all that was added to the operating system, where TensorBoard sees it.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file cannot be written to.
    pub fn flush(&mut self) -> Result<(), ReportError> {
        self.file
            .flush()
            .map_err(ReportError::io("write", &self.path))
    }

    fn summary(&mut self, tag: &str, step: u64, value: Value) -> Result<(), ReportError> {
        let value = SummaryValue {
            tag: tag.to_owned(),
            value: Some(value),
        };
        self.event(step, What::Summary(Summary { value: vec![value] }))
    }

    fn event(&mut self, step: u64, what: What) -> Result<(), ReportError> {
        let wall_time = since_epoch().as_secs_f64();
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event {
            wall_time,
            step,
            what: Some(what),
        };
        write_frame(&mut self.file, &event.encode_to_vec())
            .map_err(ReportError::io("write", &self.path))
    }
}

/// Writes one TFRecord: length, checksum of the length, data, checksum of the data; all numbers
/// little-endian.
///
/// Source: TensorFlow, `tensorflow/core/lib/io/record_writer.h`.
fn write_frame(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc32c(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked_crc32c(data).to_le_bytes())
}

/// The checksum is rotated and shifted, since a CRC of data that holds its own CRC detects little.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// A name that sorts after those of all event files in `dir`, though the clock be the same second or set
/// back.
fn next_file(dir: &Path) -> io::Result<PathBuf> {
    let mut seconds = since_epoch().as_secs();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stamp = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        if let Some(earlier) = stamp {
            seconds = seconds.max(u64::saturating_add(earlier, 1));
        }
    }
    Ok(dir.join(format!(
        "{PREFIX}{seconds:010}.{}.{}",
        host_name(),
        process::id()
    )))
}

/// The name of this machine if it is easily had; it only tells people which file came from where.
fn host_name() -> String {
    let name =
        std::env::var("HOSTNAME").or_else(|_| fs::read_to_string("/proc/sys/kernel/hostname"));
    let name: String = name
        .unwrap_or_default()
        .trim()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

struct PngHeader {
    height: u32,
    width: u32,
    channels: i32,
}

/// Reads the first chunk of a PNG, which is always `IHDR`.
fn png_header(png: &[u8]) -> Option<PngHeader> {
    let rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let (width, rest) = rest.split_first_chunk()?;
    let (height, rest) = rest.split_first_chunk()?;
    let channels = match rest.get(1)? {
        0 => 1,
        4 => 2,
        6 => 4,
        _ => 3,
    };
    Some(PngHeader {
        height: u32::from_be_bytes(*height),
        width: u32::from_be_bytes(*width),
        channels,
    })
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum SessionStatus {
    Unspecified = 0,
    Start = 1,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Value", tags = "2, 4")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(float, tag = "2")]
    Simple(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// Channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 1 x 1 RGB image.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\
        \0\0\0\x0cIDATx\x9cc\xf8\xdf \0\0\x04\x11\x01\x90\xc7\x1b\r^\0\0\0\0IEND\xaeB`\x82";

    /// CRC-32C bit by bit, from its polynomial alone.
    fn slow_crc32c(data: &[u8]) -> u32 {
        !data.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        })
    }

    /// Splits a file into its events, checking every length and checksum on the way.
    fn read(path: &Path) -> Vec<Event> {
        let unmask = |masked: &[u8]| {
            u32::from_le_bytes(masked.try_into().unwrap())
                .wrapping_sub(0xa282_ead8)
                .rotate_left(15)
        };
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let (length_crc, after) = after.split_at(4);
            assert_eq!(unmask(length_crc), slow_crc32c(length));
            let (data, after) =
                after.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (data_crc, after) = after.split_at(4);
            assert_eq!(unmask(data_crc), slow_crc32c(data));
            events.push(Event::decode(data).unwrap());
            rest = after;
        }
        events
    }

    #[test]
    fn checksums_match_known_vectors() {
        // RFC 3720, appendix B.4.
        for (data, crc) in [
            (&b"123456789"[..], 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (b"", 0),
        ] {
            assert_eq!(slow_crc32c(data), crc);
            assert_eq!(crc32c::crc32c(data), crc);
        }
    }

    #[test]
    fn a_frame_is_that_of_tensorboard() {
        // Written by `tensorboard.summary.writer.record_writer.RecordWriter`, version 2.21.0.
        let mut expected = vec![0; 40];
        expected[0] = 24;
        expected[8..12].copy_from_slice(&[0xa3, 0x7f, 0x4b, 0x22]);
        expected[36..].copy_from_slice(&[0xcf, 0xf4, 0x5f, 0x7c]);
        let mut frame = Vec::new();
        write_frame(&mut frame, &[0; 24]).unwrap();
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_file_holds_what_was_added() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&folder.path().join("made/by/create"), 0).unwrap();
        writer.scalar("loss", 1, 0.0).unwrap();
        writer.scalar("loss", 2, f64::NAN).unwrap();
        writer.image_png("pictures", 2, PNG, 1, 1).unwrap();
        writer.flush().unwrap();

        let events = read(&writer.path);
        assert_eq!(events.len(), 5);
        assert_eq!(
            events[0].what,
            Some(What::FileVersion("brain.Event:2".to_owned()))
        );
        assert_eq!(
            (events[1].step, &events[1].what),
            (0, &Some(What::SessionLog(SessionLog { status: 1 })))
        );
        let value = |event: &Event| match &event.what {
            Some(What::Summary(summary)) => (
                summary.value[0].tag.clone(),
                summary.value[0].value.clone().unwrap(),
            ),
            other => panic!("{other:?}"),
        };
        // A zero is present, not left out as the default of protobuf.
        assert_eq!(value(&events[2]), ("loss".to_owned(), Value::Simple(0.0)));
        assert!(matches!(value(&events[3]).1, Value::Simple(loss) if loss.is_nan()));
        let Value::Image(image) = value(&events[4]).1 else {
            panic!()
        };
        assert_eq!((image.height, image.width, image.colorspace), (1, 1, 3));
        assert_eq!(image.encoded_image_string, PNG);
        assert!(events.iter().all(|event| event.wall_time > 1.6e9));
    }

    #[test]
    fn a_resumed_run_discards_only_later_steps() {
        let folder = tempfile::tempdir().unwrap();
        let writer = EventWriter::create(folder.path(), 40).unwrap();
        assert_eq!(read(&writer.path)[1].step, 41);
    }

    #[test]
    fn files_sort_in_the_order_of_their_making() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder
                .path()
                .join(format!("{PREFIX}9999999990.elsewhere.1")),
            b"",
        )
        .unwrap();
        fs::write(folder.path().join("unrelated.txt"), b"").unwrap();
        let paths: Vec<_> = (0..3)
            .map(|step| EventWriter::create(folder.path(), step).unwrap().path)
            .collect();
        assert!(paths.is_sorted());
        assert!(
            paths[0]
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&format!("{PREFIX}9999999991."))
        );
    }

    #[test]
    fn what_is_not_the_png_it_was_said_to_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 0).unwrap();
        let error = writer.image_png("pictures", 1, PNG, 2, 3).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("expected a PNG of 2x3, found one of 1x1"),
            "{error}"
        );
        for bytes in [&b""[..], b"\xff\xd8\xff\xe0 a JPEG", &PNG[..20]] {
            assert!(matches!(
                writer.image_png("pictures", 1, bytes, 1, 1),
                Err(ReportError::Png { .. })
            ));
        }
    }
}
