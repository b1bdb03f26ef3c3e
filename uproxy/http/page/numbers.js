// Numbers for people, as uproxy/cli/output/numbers.py writes them: a test compares the two.

const LETTERS = ["", "k", "M", "G", "T", "P"];

/** As Python rounds: a tie goes to the even digit, where toFixed() goes up. Not for negative numbers. */
function rounded(value, digits) {
  // Ties are exact in binary numbers only at x.5, and for tenths at x.25 and x.75.
  const tie = digits === 0 ? value % 1 === 0.5 : value % 0.5 === 0.25;
  const text = value.toFixed(digits);
  if (!tie || Number(text.at(-1)) % 2 === 0) return text;
  return (Math.floor(value * 10 ** digits) / 10 ** digits).toFixed(digits);
}

/** A count or rate in powers of 1000, as its digits and its letter. */
function parts(number) {
  let value = number;
  let thousands = 0;
  while (value >= 999.5 && thousands < LETTERS.length - 1) {
    value /= 1000;
    thousands += 1;
  }
  const letter = LETTERS[thousands];
  const decimal = value < 9.95 &&
    (letter !== "" || Number(rounded(value, 1)) !== Number(rounded(value, 0)));
  return [rounded(value, decimal ? 1 : 0), letter];
}

/** 0, 0.5, 12, 1.3k, 25M. */
export function amount(number) {
  return parts(number).join("");
}

/** 0 B, 512 B, 1.3 kB, 25 MB. */
export function byteSize(number) {
  const [digits, letter] = parts(Number(rounded(number, 0)));
  return `${digits} ${letter}B`;
}

/** "1 backend", "3 backends". */
export function counted(number, noun) {
  return number === 1 ? `1 ${noun}` : `${number.toLocaleString("en")} ${noun}s`;
}

/** 45 s, 12 min, 3 h 20 min, 5 d 2 h. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [unit, large, small, name] = whole < 86400 ? [60, "h", "min", 3600] : [3600, "d", "h", 86400];
  const rest = Math.floor((whole % name) / unit);
  return `${Math.floor(whole / name)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

/** The time of day, in the time zone of whoever looks. */
export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toTimeString().slice(0, 8);
}
