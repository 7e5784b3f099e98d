//! A report as one HTML file that needs no other.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    TILES,
    page::{Page, Section},
    table::{Cell, Column, Kind, Table},
};

/// The text of `page`.
pub fn render(page: &Page) -> String {
    let report = page.report;
    let title = escape(&report.title);
    let links: String = (page.sections.iter())
        .map(|section| {
            let heading = escape(&section.study.heading());
            format!("<li><a href=\"#{}\">{heading}</a></li>\n", section.id)
        })
        .collect();
    let facts: String = [("Machine", &report.machine), ("Code", &report.revision)]
        .iter()
        .map(|(name, fact)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(fact)))
        .collect();
    let notes = paragraphs(report.notes.iter().map(String::as_str));
    let sections: String = page.sections.iter().map(section).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n{notes}<dl>\n{facts}</dl>\n{command}</header>\n\
         <nav aria-label=\"Contents\">\n<h2>Contents</h2>\n<ul>\n\
         <li><a href=\"#overview\">Overview</a></li>\n{links}\
         <li><a href=\"#base\">Base configuration</a></li>\n</ul>\n</nav>\n\
         <main>\n<section id=\"overview\" class=\"words\">\n<h2>Overview</h2>\n{overview}{reading}</section>\n\
         {sections}\
         <section id=\"base\">\n<h2>Base configuration</h2>\n\
         <p>Each value begins from it. The lines behind all numbers are in <code>results.jsonl</code>.</p>\n\
         <details><summary>The configuration</summary>\n{base}</details>\n</section>\n</main>\n</body>\n</html>\n",
        style = include_str!("page.css"),
        command = code(&report.command),
        overview = table(&page.overview, "Overview"),
        reading = paragraphs(report.reading().iter().copied()),
        base = code(&report.base_config),
    )
}

fn section(section: &Section) -> String {
    let study = section.study;
    let mut html = format!(
        "<section id=\"{}\">\n<h2>{}</h2>\n",
        section.id,
        escape(&study.heading())
    );
    html += &paragraphs([study.question.as_str()]);
    if let Some(rule) = &study.rule {
        html += &paragraphs([rule.as_str()]);
    }
    html += &table(&section.table, &study.title);
    html += &paragraphs(section.sentences.iter().map(String::as_str));
    if let Some(source) = &study.paper {
        html += &format!(
            "<p>The columns of the paper are {}; they were not measured here.</p>\n",
            escape(source)
        );
    }
    if !section.charts.is_empty() {
        html += "<div class=\"charts\">\n";
        for chart in &section.charts {
            let caption = escape(&chart.caption);
            html += &format!(
                "<figure><div class=\"scroll\" role=\"img\" aria-label=\"{caption}\" tabindex=\"0\">\n{}</div>\n\
                 <figcaption>{caption}</figcaption></figure>\n",
                chart.svg
            );
        }
        html += "</div>\n";
    }
    if !section.pictures.is_empty() {
        html += &format!("<h3>Reconstructions</h3>\n<p>{TILES}</p>\n<div class=\"pictures\">\n");
        for picture in &section.pictures {
            let label = escape(&picture.label);
            html += &format!(
                "<figure><figcaption>{label}</figcaption>\
                 <img alt=\"Reconstructions of {label}\" width=\"{}\" height=\"{}\" \
                 src=\"data:image/png;base64,{}\"></figure>\n",
                picture.width,
                picture.height,
                BASE64_STANDARD.encode(&picture.png)
            );
        }
        html += "</div>\n";
    }
    html += "<h3>Commands and configurations</h3>\n";
    for value in &study.values {
        html += &format!(
            "<details><summary>{}</summary>\n{}{}</details>\n",
            escape(&value.label),
            code(&value.command),
            code(&value.config)
        );
    }
    html + "</section>\n"
}

fn table(table: &Table, name: &str) -> String {
    let class = |kind: Kind| match kind {
        Kind::Name => " class=\"name\"",
        Kind::Measured => "",
        Kind::Paper => " class=\"paper\"",
    };
    let group = |kind: Kind| match kind {
        Kind::Name => "",
        Kind::Measured => "measured here",
        Kind::Paper => "the paper's, not measured here",
    };
    let groups: String = (table.columns.chunk_by(|a, b| a.kind == b.kind))
        .map(|columns| {
            let (kind, span) = (columns[0].kind, columns.len());
            let tag = if kind == Kind::Name { "td" } else { "th" };
            let class = class(kind);
            format!("<{tag}{class} colspan=\"{span}\">{}</{tag}>", group(kind))
        })
        .collect();
    let head: String = (table.columns.iter())
        .map(|Column { name, kind }| {
            format!("<th scope=\"col\"{}>{}</th>", class(*kind), escape(name))
        })
        .collect();
    let row = |cells: &Vec<Cell>| -> String {
        let cells = cells.iter().zip(&table.columns).enumerate();
        let cells: String = cells
            .map(|(index, (cell, column))| {
                let text = escape(&cell.text);
                match (index, cell.clear) {
                    (0, _) => format!("<th scope=\"row\" class=\"name\">{text}</th>"),
                    (_, true) => format!("<td class=\"clear\">{text}</td>"),
                    (_, false) => format!("<td{}>{text}</td>", class(column.kind)),
                }
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"Table: {}\" tabindex=\"0\">\n<table>\n\
         <thead>\n<tr>{groups}</tr>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n",
        escape(name)
    )
}

fn paragraphs<'a>(sentences: impl IntoIterator<Item = &'a str>) -> String {
    let paragraph = |words: &str| format!("<p>{}</p>\n", escape(words));
    sentences.into_iter().map(paragraph).collect()
}

fn code(text: &str) -> String {
    format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(text))
}

/// `text` as HTML shows it, between tags and in double quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            _ => escaped.push(letter),
        }
    }
    escaped
}
