import fc from 'fast-check'

// Property tests run the same cases each time: import this file beside fast-check.
fc.configureGlobal({ seed: 20_240_229 })
