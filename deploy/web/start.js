// made by Falconet
// A classic script, for browsers that would load no module: says what is missing, else starts the page.
(function () {
  'use strict';

  // The smallest module with an instruction on 128-bit vectors.
  var SIMD = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ]);

  function stop(text) {
    var problem = document.getElementById('problem');
    problem.textContent = text;
    problem.hidden = false;
    document.getElementById('status').textContent = '';
    document.getElementById('controls').hidden = true;
    document.getElementById('hint').hidden = true;
    document.documentElement.setAttribute('data-state', 'stopped');
  }

  if (location.protocol === 'file:') {
    stop(
      'Browsers load no model from the file system. Serve this folder, for example with ' +
        '“python3 -m http.server” inside it, and open http://localhost:8000.'
    );
  } else if (typeof WebAssembly !== 'object' || !WebAssembly.validate(SIMD)) {
    stop(
      'This browser has no WebAssembly SIMD, in which the model computes. Chrome 91, Firefox 89, Safari 16.4 ' +
        'and newer have it.'
    );
  } else {
    import('./app.js').catch(function (error) {
      stop('The page could not be loaded: ' + error.message);
    });
  }
})();
