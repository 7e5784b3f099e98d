//! The part of Python's dependency specifiers that PyTorch's METADATA uses.
//!
//! Source: Python Packaging User Guide, "Dependency specifiers" (PEP 508) and "Version specifiers" (PEP 440).

use std::cmp::Ordering;

use anyhow::{Context, Result, bail};

/// The Python for which wheels are chosen, whatever Python the user has: any would do, one makes it the same everywhere.
pub const PYTHON_VERSION: &str = "3.12";

/// What a marker may ask about the system.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// `Linux`, `Darwin` or `Windows`.
    pub platform_system: &'static str,
    /// `linux`, `darwin` or `win32`.
    pub sys_platform: &'static str,
    /// `x86_64`, `aarch64`, `arm64` or `AMD64`.
    pub platform_machine: &'static str,
    /// `posix` or `nt`.
    pub os_name: &'static str,
}

/// One `Requires-Dist`: `cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The package's normalised name.
    pub name: String,
    /// Which of the package's optional parts are wanted.
    pub extras: Vec<String>,
    /// Which versions will do: `==13.0.3`, `<14,>=13.0.88`; empty for any.
    pub specifier: String,
    /// When it is required; empty for always.
    marker: String,
}

impl Requirement {
    /// Reads one requirement.
    ///
    /// # Errors
    /// If `text` does not begin with a package's name or leaves a bracket open.
    pub fn parse(text: &str) -> Result<Self> {
        let (package, marker) = text.split_once(';').unwrap_or((text, ""));
        let package = package.trim();
        let end = package
            .find(|character: char| {
                !(character.is_ascii_alphanumeric() || "-_.".contains(character))
            })
            .unwrap_or(package.len());
        let (name, rest) = package.split_at(end);
        if name.is_empty() {
            bail!("{text:?} is no requirement: it does not begin with a package's name");
        }
        let rest = rest.trim_start();
        let (extras, specifier) = match rest.strip_prefix('[') {
            Some(rest) => rest
                .split_once(']')
                .with_context(|| format!("the [ of {text:?} is left open"))?,
            None => ("", rest),
        };
        // Older METADATA puts the versions in parentheses.
        let specifier = specifier
            .trim()
            .trim_start_matches('(')
            .trim_end_matches(')');
        Ok(Self {
            name: normalise(name),
            extras: extras
                .split(',')
                .map(normalise)
                .filter(|extra| !extra.is_empty())
                .collect(),
            specifier: specifier.replace(' ', ""),
            marker: marker.trim().to_owned(),
        })
    }

    /// True if it is required on `environment` when the package's `extras` are wanted.
    ///
    /// # Errors
    /// If the marker asks something that is not known here.
    pub fn applies(&self, environment: &Environment, extras: &[String]) -> Result<bool> {
        if self.marker.is_empty() {
            return Ok(true);
        }
        // A marker about an extra holds if it holds for one of them; the empty one stands for "none".
        for extra in extras.iter().map(String::as_str).chain([""]) {
            if holds(&self.marker, environment, extra)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A package's name as indexes compare it: `Nvidia_cuDNN.cu13` is `nvidia-cudnn-cu13`.
pub fn normalise(name: &str) -> String {
    let words = name
        .trim()
        .split(['-', '_', '.'])
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// True if `version` satisfies every clause of `specifier`.
///
/// # Errors
/// If a clause is not a comparison of release numbers.
pub fn allows(specifier: &str, version: &str) -> Result<bool> {
    for clause in specifier
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
    {
        let operator = ["===", "==", "!=", "<=", ">=", "<", ">"]
            .into_iter()
            .find(|operator| clause.starts_with(operator))
            .with_context(|| format!("the version clause {clause:?} is not understood"))?;
        if !compare_versions(version, operator, clause[operator.len()..].trim())? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_versions(version: &str, operator: &str, bound: &str) -> Result<bool> {
    let numbers = |text: &str| -> Result<Vec<u64>> {
        let parsed = text.split('.').map(str::parse).collect::<Result<_, _>>();
        parsed.with_context(|| format!("the version {text:?} is not understood"))
    };
    let (version, prefix) = (numbers(version)?, bound.strip_suffix(".*"));
    let bound = numbers(prefix.unwrap_or(bound))?;
    // 13.0 equals 13.0.0, and against 13.0.* only as many numbers count as it has.
    let length = if prefix.is_some() {
        bound.len()
    } else {
        version.len().max(bound.len())
    };
    let number = |numbers: &[u64], index| numbers.get(index).copied().unwrap_or(0);
    let order = (0..length)
        .map(|index| number(&version, index).cmp(&number(&bound, index)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal);
    Ok(match operator {
        "==" | "===" => order.is_eq(),
        "!=" => order.is_ne(),
        "<=" => order.is_le(),
        ">=" => order.is_ge(),
        "<" => order.is_lt(),
        ">" => order.is_gt(),
        _ => bail!("the comparison {operator:?} is not understood"),
    })
}

fn holds(marker: &str, environment: &Environment, extra: &str) -> Result<bool> {
    let tokens = tokens(marker)?;
    let mut evaluation = Evaluation {
        tokens: &tokens,
        environment,
        extra,
    };
    let value = evaluation
        .any()
        .with_context(|| format!("in the marker {marker:?}"))?;
    if !evaluation.tokens.is_empty() {
        bail!("the marker {marker:?} does not end where it should");
    }
    Ok(value)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `(` or `)`.
    Parenthesis(char),
    /// `==`, `<` ...
    Operator(String),
    /// `and`, `or`, `in`, `not` or a variable.
    Word(String),
    /// A quoted text.
    Text(String),
}

fn tokens(marker: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = marker.trim_start();
    while let Some(first) = rest.chars().next() {
        let split = |rest: &'_ str, belongs: fn(char) -> bool| {
            rest.find(|c| !belongs(c)).unwrap_or(rest.len())
        };
        let length = match first {
            '(' | ')' => {
                tokens.push(Token::Parenthesis(first));
                1
            }
            '"' | '\'' => {
                let length = rest[1..]
                    .find(first)
                    .with_context(|| format!("an open quote in {marker:?}"))?;
                tokens.push(Token::Text(rest[1..=length].to_owned()));
                length + 2
            }
            '=' | '<' | '>' | '!' | '~' => {
                let length = split(rest, |c| "=<>!~".contains(c));
                tokens.push(Token::Operator(rest[..length].to_owned()));
                length
            }
            first if first.is_ascii_alphabetic() => {
                let length = split(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
            other => bail!("an unexpected {other:?} in the marker {marker:?}"),
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// Recursive descent over a marker, evaluating as it reads.
struct Evaluation<'a> {
    /// What is left to read.
    tokens: &'a [Token],
    environment: &'a Environment,
    extra: &'a str,
}

impl Evaluation<'_> {
    /// `all or all or ...`
    fn any(&mut self) -> Result<bool> {
        let mut value = self.all()?;
        while self.skip_word("or") {
            // Read first: both sides must be consumed.
            value = self.all()? || value;
        }
        Ok(value)
    }

    /// `comparison and comparison and ...`
    fn all(&mut self) -> Result<bool> {
        let mut value = self.comparison()?;
        while self.skip_word("and") {
            value = self.comparison()? && value;
        }
        Ok(value)
    }

    /// `( any )` or `value operator value`
    fn comparison(&mut self) -> Result<bool> {
        if self.tokens.first() == Some(&Token::Parenthesis('(')) {
            self.next()?;
            let value = self.any()?;
            if self.next()? != Token::Parenthesis(')') {
                bail!("a parenthesis is left open");
            }
            return Ok(value);
        }
        let (left, left_is_version) = self.value()?;
        let operator = match self.next()? {
            Token::Operator(operator) => operator,
            Token::Word(word) if word == "in" => word,
            Token::Word(word) if word == "not" && self.skip_word("in") => "not in".to_owned(),
            other => bail!("{other:?} where a comparison is expected"),
        };
        let (right, right_is_version) = self.value()?;
        match operator.as_str() {
            "in" => Ok(right.contains(&left)),
            "not in" => Ok(!right.contains(&left)),
            operator if left_is_version => compare_versions(&left, operator, &right),
            operator if right_is_version => compare_versions(&right, mirrored(operator), &left),
            "==" | "===" => Ok(left == right),
            "!=" => Ok(left != right),
            other => bail!("the comparison {other:?} of texts is not understood"),
        }
    }

    /// A quoted text or a variable's value, and whether it is a version.
    fn value(&mut self) -> Result<(String, bool)> {
        let word = match self.next()? {
            Token::Text(text) => return Ok((text, false)),
            Token::Word(word) => word,
            other => bail!("{other:?} where a value is expected"),
        };
        let (value, is_version) = match word.as_str() {
            "platform_system" => (self.environment.platform_system, false),
            "sys_platform" => (self.environment.sys_platform, false),
            "platform_machine" => (self.environment.platform_machine, false),
            "os_name" => (self.environment.os_name, false),
            "platform_python_implementation" => ("CPython", false),
            "implementation_name" => ("cpython", false),
            "python_version" | "python_full_version" => (PYTHON_VERSION, true),
            "extra" => (self.extra, false),
            other => bail!("the variable {other:?} is not understood"),
        };
        Ok((value.to_owned(), is_version))
    }

    fn next(&mut self) -> Result<Token> {
        let (first, rest) = self
            .tokens
            .split_first()
            .context("the marker ends too early")?;
        self.tokens = rest;
        Ok(first.clone())
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(found)) if found == word);
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }
}

fn mirrored(operator: &str) -> &str {
    match operator {
        "<" => ">",
        ">" => "<",
        "<=" => ">=",
        ">=" => "<=",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::platform::Platform;

    #[test]
    fn requirements_are_taken_apart() {
        let check = |text: &str, name: &str, extras: &[&str], specifier: &str, marker: &str| {
            let expect = Requirement {
                name: name.to_owned(),
                extras: extras.iter().map(|&extra| extra.to_owned()).collect(),
                specifier: specifier.to_owned(),
                marker: marker.to_owned(),
            };
            assert_eq!(Requirement::parse(text).unwrap(), expect);
        };
        check("filelock", "filelock", &[], "", "");
        check(
            "typing_extensions>=4.10.0",
            "typing-extensions",
            &[],
            ">=4.10.0",
            "",
        );
        check(
            "cuda-toolkit[cublas,cudart]==13.0.3; platform_system == \"Linux\"",
            "cuda-toolkit",
            &["cublas", "cudart"],
            "==13.0.3",
            "platform_system == \"Linux\"",
        );
        check(
            "Nvidia.NCCL_cu13 (>=2, <3) ; os_name=='posix'",
            "nvidia-nccl-cu13",
            &[],
            ">=2,<3",
            "os_name=='posix'",
        );
        assert!(Requirement::parse("==1").is_err());
        assert!(Requirement::parse("a[b==1").is_err());
    }

    #[test]
    fn markers_decide() {
        let check = |marker: &str, extras: &[&str], expect: [bool; 3]| {
            let extras: Vec<_> = extras.iter().map(|&extra| extra.to_owned()).collect();
            let requirement = Requirement::parse(&format!("a; {marker}")).unwrap();
            let platforms = [
                Platform::LinuxX86_64,
                Platform::LinuxAarch64,
                Platform::WindowsX86_64,
            ];
            let found = platforms.map(|platform| {
                requirement
                    .applies(&platform.environment(), &extras)
                    .unwrap()
            });
            assert_eq!(found, expect, "{marker} with {extras:?}");
        };
        check("platform_system == \"Linux\"", &[], [true, true, false]);
        check(
            "platform_system == \"Linux\" and python_version < \"3.15\"",
            &[],
            [true, true, false],
        );
        check(
            "platform_system == \"Linux\" and python_version < \"3.9\"",
            &[],
            [false, false, false],
        );
        check("'3.10' <= python_version", &[], [true, true, true]);
        check("extra == 'cublas'", &[], [false, false, false]);
        check(
            "extra == 'cublas'",
            &["cudart", "cublas"],
            [true, true, true],
        );
        check(
            "sys_platform in 'linux darwin' or sys_platform not in 'linux win32'",
            &[],
            [true, true, false],
        );
        let toolkit = "(sys_platform == 'linux' and platform_machine == 'x86_64' or \
                       sys_platform == 'win32' and platform_machine == 'AMD64') and extra == 'nvtx'";
        check(toolkit, &["nvtx"], [true, false, true]);
        check(toolkit, &["cufft"], [false, false, false]);
    }

    #[test]
    fn a_marker_that_is_not_understood_is_an_error() {
        for marker in [
            "colour == 'red'",
            "os_name == 'posix",
            "(os_name == 'nt'",
            "os_name",
            "os_name < 'nt'",
            "os_name == 'nt' )",
        ] {
            let requirement = Requirement::parse(&format!("a; {marker}")).unwrap();
            assert!(
                requirement
                    .applies(&Platform::LinuxX86_64.environment(), &[])
                    .is_err(),
                "{marker}"
            );
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let check = |specifier: &str, version: &str, expect: bool| {
            assert_eq!(
                allows(specifier, version).unwrap(),
                expect,
                "{version} {specifier}"
            );
        };
        check("", "1", true);
        check("==13.0.3", "13.0.3.0", true);
        check("==13.0.96.*", "13.0.96", true);
        check("==13.0.9.*", "13.0.96", false);
        check("<14,>=13.0.88", "13.0.88", true);
        check("<14,>=13.0.88", "13.0.9", false);
        check("<14,>=13.0.88", "14.0", false);
        check("!=2.0", "2", false);
        assert!(allows("~=1.0", "1.0").is_err());
        assert!(allows("==1.0rc1", "1.0").is_err());
    }
}
