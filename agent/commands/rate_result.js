// The result page: rate on, or end the command.
"use strict";

document.getElementById("on").addEventListener("click", () => { location.href = "./"; });
document.getElementById("close").addEventListener("click", async () => {
  try {
    await fetch("close", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  } catch { /* it has ended already */ }
  for (const id of ["on", "close"]) document.getElementById(id).disabled = true;
  document.getElementById("closed").hidden = false;
});
