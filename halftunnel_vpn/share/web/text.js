// How figures and times are written.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function amount(count) {
  let unit = 0;
  while (count >= 1000 && unit < UNITS.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond) {
  return `${((bytesPerSecond * 8) / 1e6).toFixed(bytesPerSecond < 125000 ? 2 : 1)} Mbit/s`;
}

export function moment(seconds) {
  if (seconds === null) return "never";
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
}

export function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// As the forms and `htvpn server client` take them.
export function quotaValue(bytes) {
  return bytes === null ? "" : `${exact(bytes / 1e9)}GB/month`;
}

export function rateValue(bytesPerSecond) {
  return bytesPerSecond === null ? "" : `${exact((bytesPerSecond * 8) / 1e6)}mbit`;
}

function exact(number) {
  return String(Number(number.toFixed(9)));
}

export function stateOf(row) {
  if (row.refused) return { text: row.refused, kind: "refused" };
  return row.online ? { text: "online", kind: "online" } : { text: "offline", kind: "offline" };
}

export function termsOf(row) {
  const parts = [];
  if (row.expires) parts.push(`until ${row.expires}`);
  if (row.quota !== null) parts.push(`${amount(row.quota)} a month`);
  if (row.rate !== null) parts.push(rate(row.rate));
  return parts.join(", ") || "no limits";
}
