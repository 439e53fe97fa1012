// What a text of packages asks for, entry by entry, as the server reads it.
//
//   const packages = prebuiltPackages(rules);    // what environment/pasted.py's rules_for_page gives
//   packages.entries(text)     [{text, name, wish, mistake, duplicate}, ...] in the text's order:
//                              text       the entry as it was written, without quotes and comments
//                              name       the package's normalised name, "" where it has none
//                              wish       what follows the name: extras, versions, condition
//                              mistake    the sentence with which the server refuses the entry, "" where none is seen
//                              duplicate  whether an earlier entry asks for the same package under the same condition
//   packages.refusal(text)     the sentence with which the server refuses the text as a whole, "" where it does not
//   packages.toText(entries)   a text, one entry on each line, that is read as these entries
//   packages.quoted(text)      as the server quotes it in a sentence
//
// The rules are the server's: what it does not refuse has no mistake here. Contradicting versions, and whether versions and
// conditions mean something, are left to it.
//
// This file is put into a page as it is: it must hold neither an end tag of a script nor a template's brackets.

function prebuiltPackages(rules) {
  "use strict";

  const compile = (source, flags) => new RegExp(source, flags || "u");
  const ruled = (mistake) => Object.assign({}, mistake, { regexp: compile(mistake.pattern, mistake.flags) });

  const mistakes = rules.mistakes.map(ruled);
  const ofLines = mistakes.filter((mistake) => mistake.whole_line);
  const control = ruled(rules.text.control);
  const userinfo = compile(rules.quoting.userinfo, "gu");
  const comment = compile(rules.text.comment, "gu");
  const prompt = compile(rules.text.prompt);
  const install = compile(rules.text.install, "i");
  const installWithin = compile(rules.text.install_within, "i");
  const betweenCommands = compile(rules.text.between_commands, "i");
  const pieces = compile(rules.text.pieces, "gu");
  const goesOn = compile(rules.text.goes_on);
  const goesOnAfterComma = compile(rules.text.goes_on_after_comma);
  const unfinished = compile(rules.text.unfinished);
  const changesNothing = compile(rules.text.changes_nothing);
  const takesValue = compile(rules.text.takes_value);
  const named = compile(rules.text.name);

  const trimmed = (text) => text.replace(/^[ \t]+/, "").replace(/[ \t]+$/, "");
  const trimmedEnd = (text) => text.replace(/[ \t]+$/, "");
  const count = (number) => String(number).replace(/(\d)(?=(?:\d{3})+$)/g, "$1,");
  const length = (text) => Array.from(text).length;
  const hexadecimal = (character, digits) => character.codePointAt(0).toString(16).padStart(digits, "0");
  const filled = (template, values) => template.replace(/\{([a-z]+)\}/g, (place, name) => values[name]);

  // -- quoting ------------------------------------------------------------------------------------------------------

  function prints(character) {
    return character === " " || !/[\p{C}\p{Z}]/u.test(character);
  }

  function escaped(character) {
    const known = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    if (known) return known;
    const codePoint = character.codePointAt(0);
    if (codePoint < 0x100) return "\\x" + hexadecimal(character, 2);
    return codePoint < 0x10000 ? "\\u" + hexadecimal(character, 4) : "\\U" + hexadecimal(character, 8);
  }

  function quoted(value) {
    const read = Array.from(value.slice(0, 2 * rules.quoting.read)).slice(0, rules.quoting.read).join("");
    const characters = Array.from(read.replace(userinfo, "://"));
    const shown = characters.slice(0, rules.quoting.shown).map((one) => (prints(one) ? one : escaped(one)));
    return "'" + shown.join("") + (characters.length > rules.quoting.shown ? "\u2026" : "") + "'";
  }

  function namedCharacter(character) {
    const codePoint = "U+" + hexadecimal(character, 4).toUpperCase();
    return prints(character) ? "'" + character + "' (" + codePoint + ")" : codePoint;
  }

  function normalised(name) {
    return name.replace(/[-_.]+/g, "-").toLowerCase();
  }

  // What people mean who write this name in a program.
  function meant(name) {
    return Object.prototype.hasOwnProperty.call(rules.meant, normalised(name)) ? rules.meant[normalised(name)] : name;
  }

  // -- mistakes -----------------------------------------------------------------------------------------------------

  function applies(mistake, entry) {
    const match = mistake.regexp.exec(mistake.of === "wish" ? trimmedEnd(entry.split(";", 1)[0]) : entry);
    return (match === null) === mistake.absent ? { match } : null;
  }

  function applied(mistake, entry) {
    const found = applies(mistake, entry);
    if (found === null) return "";
    const values = { quoted: quoted(entry), count: count(length(entry)) };
    if (found.match !== null) {
      values.character = found.match[0] ? namedCharacter(Array.from(found.match[0])[0]) : "";
      values.package = found.match[1] === undefined ? "" : quoted(meant(found.match[1]));
    }
    return filled(mistake.message, values);
  }

  function mistakeIn(entry) {
    const first = mistakes.find((mistake) => applies(mistake, entry) !== null);
    return first === undefined ? "" : applied(first, entry);
  }

  // -- from text to entries -----------------------------------------------------------------------------------------

  function read(text) {
    const lines = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n").split("\n");
    const found = [];
    let pending = [];
    const logical = (line) => {
      found.push(...ofLine(trimmed(pending.join("") + line)));
      pending = [];
    };
    for (const line of lines) {
      const message = applied(control, trimmed(line));
      if (message) {
        found.push({ text: trimmed(line), mistake: message });
        continue;
      }
      const rest = line.replace(comment, "");
      const bare = trimmedEnd(rest);
      if (bare.endsWith("\\")) pending.push(bare.slice(0, -1) + rest.slice(bare.length));
      else logical(rest);
    }
    logical("");
    return found;
  }

  function ofLine(line) {
    const command = line.replace(prompt, "");
    if (install.test(command)) return command.split(betweenCommands).flatMap((part) => ofCommand(trimmed(part)));
    if (ofLines.some((mistake) => applies(mistake, line) !== null)) return [{ text: line, mistake: "" }];
    return takenApart(line, false);
  }

  function ofCommand(part) {
    const rest = trimmed(part.startsWith("&&") ? part.slice(2) : part);
    const match = install.exec(rest);
    const given = match === null ? "" : rest.slice(match[0].length);
    if (match !== null && !installWithin.test(given)) return takenApart(given, true);
    return rest ? [{ text: part, mistake: "" }] : [];
  }

  function takenApart(line, isCommand) {
    const found = [];
    let entry = growing();
    const finish = () => {
      const text = entry.text();
      if (text && !(isCommand && changesNothing.test(text))) found.push({ text, mistake: "" });
      entry = growing();
    };
    for (const written of line.match(pieces) || []) {
      if (" \t".includes(written[0])) entry.space();
      else if (written === ",") entry.comma();
      else if (written[0] === ";") {
        const condition = trimmedEnd(written);
        if (condition !== ";" || !isCommand) entry.add(condition);
      } else {
        const isQuoted = written.length > 1 && "\"'".includes(written[0]);
        const piece = isQuoted ? written.slice(1, -1) : written;
        if (!entry.takes(piece)) finish();
        entry.add(piece);
        if (isQuoted && piece.includes(";")) entry.close();
      }
    }
    finish();
    return found;
  }

  // An entry to which the pieces of a line are added, and whether the next one belongs to it.
  function growing() {
    const parts = [];
    let gap = false;
    let closed = false;
    let last = "";
    let depth = 0;
    let afterComma = false;
    const isOption = () => parts.length > 0 && parts[0].startsWith("-");

    function add(piece) {
      if (parts.length) parts.push((afterComma && piece[0] !== ";" ? "," : "") + (gap ? " " : ""));
      parts.push(piece);
      gap = afterComma = false;
      last = piece;
      for (const character of piece) {
        if ("[(".includes(character)) depth += 1;
        else if ("])".includes(character)) depth = Math.max(0, depth - 1);
      }
    }

    function takes(piece) {
      if (!parts.length || depth > 0) return true;
      if (afterComma) return !closed && goesOnAfterComma.test(piece);
      if (!gap) return true;
      if (isOption()) return parts.length === 1 && takesValue.test(parts[0]);
      return !closed && (goesOn.test(piece) || unfinished.test(last));
    }

    function comma() {
      if (depth > 0 || (isOption() && !gap)) add(",");
      else afterComma = parts.length > 0;
    }

    return {
      add,
      takes,
      comma,
      space: () => {
        gap = true;
      },
      close: () => {
        closed = true;
      },
      text: () => trimmed(parts.join("")),
    };
  }

  // -- for the page -------------------------------------------------------------------------------------------------

  function entries(text) {
    const seen = new Set();
    return read(text).map((entry) => {
      const mistake = entry.mistake || mistakeIn(entry.text);
      const match = mistake ? null : named.exec(entry.text);
      const name = match === null ? "" : normalised(match[0]);
      const wish = match === null ? "" : trimmed(entry.text.slice(match[0].length));
      const semicolon = wish.indexOf(";");
      const condition = semicolon < 0 ? "" : wish.slice(semicolon).replace(/[ \t]+/g, "").replace(/"/g, "'");
      const key = name + condition;
      const duplicate = name !== "" && seen.has(key);
      if (name) seen.add(key);
      return { text: entry.text, name, wish, mistake, duplicate };
    });
  }

  function refusal(text) {
    const limits = rules.limits;
    const characters = length(text);
    if (characters > limits.characters) {
      return filled(limits.too_long, { count: count(characters), limit: count(limits.characters) });
    }
    const number = read(text).length;
    return number > limits.entries ? filled(limits.too_many, { count: count(number), limit: count(limits.entries) }) : "";
  }

  function line(entry) {
    const spellings = [entry.text, '"' + entry.text + '"', "'" + entry.text + "'"];
    const isRead = (spelling) => {
      const found = read(spelling);
      return found.length === 1 && found[0].text === entry.text;
    };
    return spellings.find(isRead) || entry.text;
  }

  const toText = (list) => list.map(line).join("\n");

  return { entries, refusal, toText, quoted };
}

if (typeof module !== "undefined") module.exports = prebuiltPackages;
