import { signal } from '@preact/signals'

/** Every text of the pages: English, Chinese. */
const texts = {
  skip: ['Skip to content', '跳到正文'],
  train: ['Train', '训练'],
  runs: ['Runs', '运行'],
  chat: ['Chat', '对话'],
  exportModels: ['Export', '导出'],
  datasets: ['Datasets', '数据集'],
  api: ['API', '接口'],
  language: ['中文', 'English'],
  theme: ['Light or dark', '明暗'],
  offline: ['The server does not answer. Trying again…', '服务器没有响应，正在重试……'],
  keyNeeded: ['This server asks for an API key.', '此服务器需要 API 密钥。'],
  key: ['API key', 'API 密钥'],
  use: ['Use it', '使用'],
  loading: ['Loading…', '加载中……'],
  none: ['Nothing here yet.', '这里还没有内容。'],
  base: ['Base model', '基础模型'],
  dataset: ['Dataset', '数据集'],
  datasetsHint: ['One or several; hold Ctrl for more', '一个或多个，按住 Ctrl 多选'],
  stage: ['Stage', '阶段'],
  method: ['Method', '方法'],
  epochs: ['Epochs', '轮数'],
  learningRate: ['Learning rate', '学习率'],
  batchSize: ['Batch size', '批大小'],
  cutoff: ['Cutoff length (tokens)', '截断长度（词元）'],
  rank: ['LoRA rank', 'LoRA 秩'],
  advanced: ['Advanced', '高级'],
  moreFields: ['More fields, as YAML', '更多字段（YAML）'],
  moreHint: [
    "LLaMA-Factory's names, one to a line: neftune_noise_alpha: 5",
    '使用 LLaMA-Factory 的字段名，每行一个：neftune_noise_alpha: 5',
  ],
  estimate: ['What it will take', '预计'],
  steps: ['Steps', '步数'],
  examples: ['Examples', '样本'],
  tokensEpoch: ['Tokens an epoch', '每轮词元'],
  learned: ['learned', '参与训练'],
  trainable: ['Trainable parameters', '可训练参数'],
  memory: ['Memory', '内存'],
  fits: ['it fits', '足够'],
  fitsNot: ['it does NOT fit', '不足'],
  command: ['Command', '命令'],
  yaml: ['YAML', 'YAML'],
  copy: ['Copy', '复制'],
  copied: ['Copied', '已复制'],
  start: ['Start training', '开始训练'],
  starting: ['Starting…', '正在启动……'],
  preview: ['Preview', '预览'],
  previewHint: [
    'Marked tokens are learned; the others are only read.',
    '标记的词元参与训练，其余仅作为输入。',
  ],
  rejected: ['Rejected answer', '被拒绝的回答'],
  row: ['Row', '行'],
  previous: ['Previous', '上一页'],
  next: ['Next', '下一页'],
  warning: ['Note', '提示'],
  run: ['Run', '运行'],
  status: ['Status', '状态'],
  progress: ['Progress', '进度'],
  loss: ['Loss', '损失'],
  smoothed: ['smoothed', '平滑'],
  evalLoss: ['evaluation', '评估'],
  rate: ['learning rate', '学习率'],
  created: ['Created', '创建时间'],
  compare: ['Compare curves of the chosen runs', '比较所选运行的曲线'],
  choose: ['Choose', '选择'],
  abort: ['Stop', '停止'],
  aborting: ['stops after its current step', '当前步骤后停止'],
  resume: ['Resume', '继续'],
  remove: ['Delete', '删除'],
  removeAsk: [
    'Delete this run with all of its checkpoints? This cannot be undone.',
    '删除此运行及其全部检查点？此操作无法撤销。',
  ],
  removeDataset: ['Delete', '删除'],
  cancel: ['Cancel', '取消'],
  merge: ['Merge', '合并'],
  merging: ['Merging', '合并中'],
  merged: ['Merged model', '合并后的模型'],
  evaluate: ['Evaluate', '评估'],
  evaluateOn: ['Evaluate on', '评估数据集'],
  evaluations: ['Evaluations', '评估'],
  checkpoints: ['Checkpoints', '检查点'],
  log: ['Log', '日志'],
  remaining: ['left', '剩余'],
  speed: ['tokens/s', '词元/秒'],
  talk: ['Chat with it', '与之对话'],
  allRuns: ['All runs', '全部运行'],
  model: ['Model', '模型'],
  left: ['Left', '左'],
  right: ['Right', '右'],
  sideBySide: ['Two side by side', '并排比较两个模型'],
  system: ['System prompt', '系统提示'],
  message: ['Message', '消息'],
  send: ['Send', '发送'],
  stop: ['Stop', '停止'],
  regenerate: ['Regenerate', '重新生成'],
  clear: ['Clear', '清空'],
  temperature: ['Temperature', '温度'],
  topP: ['Top p', 'Top p'],
  maxTokens: ['Longest answer (tokens)', '最长回答（词元）'],
  seed: ['Seed', '随机种子'],
  showLogprobs: ['Show probabilities of tokens', '显示词元概率'],
  you: ['You', '你'],
  answerOf: ['Answer of', '回答：'],
  mergeFirst: [
    'This is an adapter. An export takes a whole model: merge it first.',
    '这是适配器。导出需要完整模型：请先合并。',
  ],
  format: ['Format', '格式'],
  bits: ['Bits', '位数'],
  rounding: ['Rounding', '舍入方法'],
  calibration: ['Calibration data', '校准数据集'],
  maxKld: ['Largest mean KL divergence allowed', '允许的最大平均 KL 散度'],
  exportIt: ['Export', '导出'],
  exports: ['Exports', '导出列表'],
  files: ['Files', '文件'],
  size: ['Size', '大小'],
  archive: ['Everything as one archive', '打包下载全部文件'],
  commands: ['Commands', '命令'],
  report: ['Report', '报告'],
  upload: ['Upload a dataset', '上传数据集'],
  file: ['File (json, jsonl, csv, parquet, txt)', '文件（json、jsonl、csv、parquet、txt）'],
  name: ['Name', '名称'],
  formatting: ['Form of the rows', '数据格式'],
  mapColumns: ['Which key of a row is what? Empty: as usual.', '每个字段对应的键（留空则用默认值）'],
  convert: ['Convert: a copy with renamed keys', '转换：重命名键并另存'],
  oldKey: ['Old key', '旧键'],
  newKey: ['New key', '新键'],
  validate: ['Check all rows', '检查所有行'],
  allGood: ['All rows can be used.', '所有行均可用。'],
  badRows: ['Rows that cannot be used', '无法使用的行'],
  rows: ['rows', '行'],
  done: ['Done', '完成'],
  open: ['Open', '打开'],
} as const satisfies Record<string, readonly [string, string]>

type Text = keyof typeof texts

const LANGUAGES = ['en', 'zh'] as const
type Language = (typeof LANGUAGES)[number]

function initial(): Language {
  const kept = localStorage.getItem('anneal-language')
  if (kept === 'en' || kept === 'zh') return kept
  return navigator.language.startsWith('zh') ? 'zh' : 'en'
}

const language = signal<Language>(initial())

/** A text in the chosen language. Reading it inside a component makes the component follow the choice. */
export const t = (name: Text): string => texts[name][LANGUAGES.indexOf(language.value)]!

export function switchLanguage(): void {
  language.value = language.value === 'en' ? 'zh' : 'en'
  localStorage.setItem('anneal-language', language.value)
  document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en'
}

document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en'
