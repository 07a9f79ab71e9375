/* The frame of a page and its style. */
#include "report/html.h"

/* Text and lines keep a contrast of 4.5 to 1 and of 3 to 1 in both modes. */
static const char style[] =
    ":root{color-scheme:light dark;--bg:#fafaf8;--card:#fff;--text:#1c1f24;--soft:#59616d;"
    "--line:#dcdfe4;--float:#7d8590;--int8:#0a5ea8;--warn:#b3261e;--shade:#b3261e14;"
    "--cell:10,94,168}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14161a;--card:#1c1f25;--text:#e8eaed;"
    "--soft:#a6adb8;--line:#363b44;--float:#8b93a0;--int8:#6cb2ff;--warn:#ff8f85;"
    "--shade:#ff8f851c;--cell:70,140,215}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,sans-serif;"
    "font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}\n"
    "main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}\n"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:48px 0 4px}\n"
    "h3{font-size:1rem;margin:0;overflow-wrap:anywhere}\n"
    "p{margin:4px 0 12px;max-width:72ch}\n"
    ".soft,figcaption{color:var(--soft);font-size:.875rem}\n"
    ".grid{display:grid;gap:16px;margin:12px 0;"
    "grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}\n"
    ".facts{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));"
    "margin:20px 0}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px;"
    "min-width:0}\n"
    ".fact b{display:block;font-size:1.5rem;line-height:1.2}\n"
    "code{font:.9em ui-monospace,monospace;white-space:nowrap}\n"
    "figure{margin:8px 0 0}figcaption{margin-top:4px;overflow-wrap:anywhere}\n"
    ".scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--card);"
    "margin:12px 0}\n"
    ".tall{max-height:520px;overflow-y:auto}\n"
    "table{border-collapse:collapse;font-size:.875rem;width:100%}\n"
    "th,td{padding:6px 12px;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}\n"
    "thead th{position:sticky;top:0;background:var(--card);color:var(--soft);font-weight:600;"
    "border-top:0;box-shadow:0 1px 0 var(--line)}\n"
    ".left{text-align:left}\n"
    ".matrix{width:auto}.matrix td,.matrix th{text-align:center;padding:4px 9px}\n"
    ".off{color:var(--warn);font-weight:600}\n"
    ".bar{display:grid;grid-template-columns:3rem 1fr 6.5rem;gap:8px;align-items:center;"
    "font-size:.875rem;margin-top:8px}\n"
    ".bar span:last-child{text-align:right;white-space:nowrap}\n"
    ".track{height:14px}.track i{display:block;height:100%;border-radius:2px}\n"
    ".is-float{background:var(--float)}.is-int8{background:var(--int8)}\n"
    ".key{display:inline-block;width:10px;height:10px;border-radius:50%;margin:0 6px 0 0}\n"
    ".key.ring{background:none;border:2px solid var(--float)}\n"
    "svg{display:block;max-width:none}svg.fit{width:100%;height:auto}\n"
    "svg text{fill:var(--soft);font:11px system-ui,sans-serif}\n"
    ".axis{stroke:var(--line);fill:none}.zero{stroke:var(--soft);fill:none}\n"
    ".curve{stroke:var(--int8);fill:none;stroke-width:1.5}.dot{fill:var(--int8)}\n"
    ".ring{fill:var(--card);stroke:var(--float);stroke-width:1.5}\n"
    ".stem{stroke:var(--float);fill:none;stroke-width:1}\n"
    ".area{fill:var(--int8)}.strokes{stroke:var(--int8);fill:none}\n"
    ".clip{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:4 3;fill:none}\n"
    ".outside{fill:var(--shade)}\n"
    ".hover{fill:transparent}.hover:hover{fill:var(--int8);fill-opacity:.18}\n"
    "dl{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;margin:8px 0;font-size:.875rem}\n"
    "dt{color:var(--soft)}dd{margin:0;text-align:right}\n"
    "details{margin-top:48px}summary{cursor:pointer}\n";

void html_name(text *t, const char *name)
{
    for (; *name; name++) {
        switch (*name) {
        case '&': text_add(t, "&amp;"); break;
        case '<': text_add(t, "&lt;"); break;
        case '>': text_add(t, "&gt;"); break;
        case '"': text_add(t, "&quot;"); break;
        case '\'': text_add(t, "&#39;"); break;
        default: text_add(t, "%c", *name);
        }
    }
}

void html_begin(text *t, const char *title)
{
    text_add(t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<link rel=\"icon\" href=\"data:,\">\n<title>");
    html_name(t, title);
    text_add(t, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", style);
}

void html_end(text *t)
{
    text_add(t, "</main>\n</body>\n</html>\n");
}
