import { useEffect, useRef } from 'preact/hooks'
import { t } from '../i18n.ts'

/** Asks before something is lost. The browser's own dialog keeps the focus inside and closes on Escape. */
export function Confirm(props: { question: string; action: string; onYes(): void; onNo(): void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} onClose={props.onNo} aria-label={props.action}>
      <p>{props.question}</p>
      <p class="pager">
        <button type="button" class="quiet" onClick={() => dialog.current?.close()}>
          {t('cancel')}
        </button>
        <button type="button" class="danger" onClick={props.onYes}>
          {props.action}
        </button>
      </p>
    </dialog>
  )
}
