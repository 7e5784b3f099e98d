//! A report as Markdown, with its charts and pictures in files beside it.

use super::{
    TILES, html,
    page::{Page, Section},
    table::{Cell, Kind, Table},
};

/// Pictures side by side.
const COLUMNS: usize = 3;

/// The text of `page`.
pub fn render(page: &Page) -> String {
    let report = page.report;
    let mut text = format!("# {}\n\n", escape(&report.title));
    text += &paragraphs(report.notes.iter().map(String::as_str));
    text += &format!(
        "- Machine: {}\n- Code: {}\n- [Every run's numbers](results.jsonl)\n\n",
        escape(&report.machine),
        escape(&report.revision)
    );
    text += &code("sh", &report.command);
    text += "## Overview\n\n";
    text += &table(&page.overview);
    text += &paragraphs(report.reading().iter().copied());
    for section in &page.sections {
        text += &self::section(section);
    }
    text += "## Base configuration\n\nEach value begins from it.\n\n";
    text += &details("The configuration", &code("toml", &report.base_config));
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn section(section: &Section) -> String {
    let study = section.study;
    let mut text = format!("## {}\n\n", escape(&study.heading()));
    text += &paragraphs(
        [study.question.as_str()]
            .into_iter()
            .chain(study.rule.as_deref()),
    );
    text += &table(&section.table);
    text += &paragraphs(section.sentences.iter().map(String::as_str));
    if let Some(source) = &study.paper {
        let source = escape(source);
        text += &format!("The columns of the paper are {source}; they were not measured here.\n\n");
    }
    for chart in &section.charts {
        text += &format!("![{}]({})\n\n", escape(&chart.caption), chart.file);
    }
    if !section.pictures.is_empty() {
        text += &format!("### Reconstructions\n\n{TILES}\n\n<table>\n");
        for pictures in section.pictures.chunks(COLUMNS) {
            text += "<tr>\n";
            for picture in pictures {
                let (label, file) = (html::escape(&picture.label), &picture.file);
                text += &format!(
                    "<td>{label}<br><img src=\"{file}\" alt=\"Reconstructions of {label}\" width=\"280\"></td>\n"
                );
            }
            text += "</tr>\n";
        }
        text += "</table>\n\n";
    }
    text += "### Commands and configurations\n\n";
    for value in &study.values {
        let inside = code("sh", &value.command) + &code("toml", &value.config);
        text += &details(&value.label, &inside);
    }
    text
}

fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names = table.columns.iter().map(|column| match column.kind {
        Kind::Paper => format!("*the paper's {}*", escape(&column.name)),
        _ => escape(&column.name),
    });
    let lines = table.columns.iter().map(|column| match column.kind {
        Kind::Name => ":--".to_owned(),
        _ => "--:".to_owned(),
    });
    let mut text = row(names.collect()) + &row(lines.collect());
    for cells in &table.rows {
        let cells = cells.iter().zip(&table.columns).map(|(cell, column)| {
            let Cell { text, clear } = cell;
            match column.kind {
                _ if *clear => format!("**{}**", escape(text)),
                Kind::Paper => format!("*{}*", escape(text)),
                _ => escape(text),
            }
        });
        text += &row(cells.collect());
    }
    text + "\n"
}

fn paragraphs<'a>(sentences: impl IntoIterator<Item = &'a str>) -> String {
    let paragraph = |words: &str| format!("{}\n\n", escape(words));
    sentences.into_iter().map(paragraph).collect()
}

fn details(summary: &str, inside: &str) -> String {
    let summary = html::escape(summary).replace(['\n', '\r'], " ");
    format!("<details><summary>{summary}</summary>\n\n{inside}</details>\n\n")
}

fn code(language: &str, text: &str) -> String {
    // A fence longer than any in the text.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}{language}\n{}\n{fence}\n\n", text.trim_end())
}

/// `text` on one line, without what Markdown takes for markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => escaped.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '#' | '$' | '&' => {
                escaped.extend(['\\', letter]);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}
