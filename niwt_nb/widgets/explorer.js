(card => {
  if (!card || card.niwt) return;
  card.niwt = true;
  const all = q => [...card.querySelectorAll(q)];
  const put = (e, name, value) => e.getAttribute(name) === value || e.setAttribute(name, value);
  const tell = (...words) => {
    const input = card.querySelector('.niwt-pointer input');
    if (input) input.value = [...words, Date.now()].join(' ');
    ['input', 'change'].forEach(kind => input?.dispatchEvent(new Event(kind, {bubbles: true})));
    return input;
  };
  let told = '';
  const theme = () => {
    if (!card.isConnected) return;  // the other mode is shown
    const colour = getComputedStyle(card).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number);
    const name = colour.reduce((a, b) => a + b) < 384 ? 'dark' : 'light';
    if (name !== told && (name === 'dark') !== card.classList.contains('niwt-dark') && tell(name)) told = name;
  };
  const tidy = () => {
    theme();
    all('.noUi-handle').forEach(e => put(e, 'aria-label', e.closest('.widget-slider')?.querySelector('.widget-label')?.textContent || 'value'));
    all('.widget-play button').forEach(e => put(e, 'aria-label', e.querySelector('.fa-stop') ? 'stop' : e.querySelector('.fa-pause') ? 'pause' : 'play'));
    all('.widget-upload').forEach(e => put(e, 'aria-label', 'Upload a picture'));
    all('.widget-toggle-button, .widget-toggle-buttons button').forEach(e => put(e, 'aria-pressed', String(e.classList.contains('mod-active'))));
    all('.niwt-alt').forEach(e => { const picture = e.parentElement.querySelector('img.niwt-panel'); if (picture) { put(picture, 'alt', e.textContent.trim()); put(e, 'aria-hidden', 'true'); } });
    all('a[download]:not([data-done])').forEach(e => { e.dataset.done = 'yes'; e.click(); });
  };
  new MutationObserver(tidy).observe(card, {childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['class']});
  new MutationObserver(theme).observe(document.body, {attributes: true});
  card.addEventListener('click', event => {
    const picture = event.target.closest('img'), name = [...(picture?.classList || [])].find(c => c.startsWith('niwt-at-'));
    if (!name) return;
    const box = picture.getBoundingClientRect(), share = (at, from, of) => ((at - from) / of).toFixed(4);
    tell(name.slice(8), share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height));
  });
  const page = card.closest('.niwt-app') ? document : card;  // on a page of its own a picture may be dropped anywhere
  const files = event => card.isConnected && card.querySelector('.widget-upload') && event.dataTransfer?.types.includes('Files');
  const over = event => {
    if (!files(event)) return;
    event.preventDefault();
    card.classList.toggle('niwt-drop', event.type === 'dragover');
    if (event.type !== 'drop') return;
    event.stopPropagation();
    const one = new DataTransfer(), click = HTMLInputElement.prototype.click;
    if (event.dataTransfer.files.length) one.items.add(event.dataTransfer.files[0]);
    HTMLInputElement.prototype.click = function () { this.files = one.files; this.dispatchEvent(new Event('change')); };  // in place of asking for a file
    try { if (one.files.length) card.querySelector('.widget-upload').click(); } finally { HTMLInputElement.prototype.click = click; }
  };
  ['dragover', 'dragleave', 'drop'].forEach(kind => page.addEventListener(kind, over));
  tidy();
})(this.closest('.niwt'));
